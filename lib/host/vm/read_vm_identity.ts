/** Who the VM behind a monitor is. */
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
 * Asks QEMU who its VM is.
 *
 * @param name What the operator calls it, in place of QEMU's UUID and name.
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

/** A VM of which only that is known, if it is. */
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

/** By its threads' ids, and when they started, in this boot of the host. */
function processOf(threads: readonly number[]): string | undefined {
  if (threads.length === 0) return undefined;
  const bootId = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
  return digest([bootId, ...threads.map((id) => `${id} ${startOf(id)}`)]);
}

/** Clock ticks since the boot; nothing of a process on another host, or out of sight. */
function startOf(thread: number): string {
  try {
    const stat = Deno.readTextFileSync(`/proc/${thread}/stat`);
    // Behind the command's name, which may hold anything, field 22 of all.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return "";
  }
}

function digest(parts: readonly string[]): string {
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex").slice(0, 32);
}
