/** The identity of the VM behind a monitor. */
import { createHash } from "node:crypto";
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import { QemuError } from "../../errors.ts";
import type { QmpCommand } from "../../qmp/codec.ts";
import {
  decodeVmFacts,
  IDENTITY_QUERIES,
  type IdentityReplies,
  macQueries,
} from "../../qmp/vm_facts.ts";
import { plainVmName } from "../../replica/vm_fields.ts";
import type { QmpClient } from "./qmp_client.ts";

/**
 * Asks QEMU for its VM's identity.
 *
 * @param name The operator's name for the VM, in place of QEMU's UUID and name.
 * @throws {TransportError} As {@link QmpClient.execute}.
 */
export async function readVmIdentity(qmp: QmpClient, name?: string): Promise<VmIdentity> {
  const replies: { -readonly [Key in keyof IdentityReplies]: unknown } = {};
  for (const [key, query] of Object.entries(IDENTITY_QUERIES)) {
    replies[key as keyof IdentityReplies] = await ask(qmp, query);
  }
  const macs: unknown[] = [];
  for (const query of macQueries(replies)) macs.push(await ask(qmp, query));
  const facts = decodeVmFacts(replies, macs);
  const process = processOf(facts.threads);
  return {
    ...(name === undefined ? { uuid: facts.uuid } : {}),
    ...namedVm(name ?? facts.name),
    ...(process === undefined ? {} : { process }),
    shape: digest(facts.devices),
  };
}

/** The identity of a VM of which at most the name is known. */
export function namedVm(name: string | undefined): VmIdentity {
  return name === undefined ? {} : { name: plainVmName(name) };
}

/** @returns `undefined` where this QEMU does not know the answer. */
async function ask(qmp: QmpClient, query: QmpCommand): Promise<unknown> {
  try {
    return await qmp.run(query);
  } catch (error) {
    if (error instanceof QemuError) return undefined;
    throw error;
  }
}

/**
 * Identifies QEMU's process by the ids and starting times of its vCPU threads, in this boot of the
 * host.
 */
function processOf(threads: readonly number[]): string | undefined {
  if (threads.length === 0) return undefined;
  const bootId = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
  return digest([bootId, ...threads.map((id) => `${id} ${startOf(id)}`)]);
}

/**
 * When a thread started, in clock ticks since the boot; undefined if it runs on another host, or is
 * not visible from here.
 */
function startOf(thread: number): string {
  try {
    const stat = Deno.readTextFileSync(`/proc/${thread}/stat`);
    // Field 22 of all, counted from behind the command's name, which may contain anything.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return "";
  }
}

function digest(parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}
