/**
 * QEMU's answers on its VM that distinguish the VM from others.
 *
 * @see QEMU qapi/machine.json, qapi/misc.json, qapi/block-core.json
 */
import type { QmpCommand } from "./codec.ts";

/** The questions to QEMU. A QEMU that does not know one of them is no error. */
export const IDENTITY_QUERIES = {
  uuid: { execute: "query-uuid" },
  name: { execute: "query-name" },
  machine: { execute: "qom-get", arguments: { path: "/machine", property: "type" } },
  memory: { execute: "query-memory-size-summary" },
  cpus: { execute: "query-cpus-fast" },
  drives: { execute: "query-block" },
  named: { execute: "qom-list", arguments: { path: "/machine/peripheral" } },
  anonymous: { execute: "qom-list", arguments: { path: "/machine/peripheral-anon" } },
} as const satisfies Record<string, QmpCommand>;

/** The answers by the names of the questions; what is absent is unknown. */
export type IdentityReplies = Readonly<Partial<Record<keyof typeof IDENTITY_QUERIES, unknown>>>;

/** The facts in the answers. */
interface VmFacts {
  /** As 32 hexadecimal digits; absent if QEMU was given none. */
  readonly uuid?: string;
  readonly name?: string;
  /** The vCPUs' threads on QEMU's host. */
  readonly threads: readonly number[];
  /** Machine, RAM, MAC addresses and disks, as text, in a fixed order. */
  readonly devices: readonly string[];
}

/** Asks each device that was listed for its MAC address; those that have none refuse. */
export function macQueries({ named, anonymous }: IdentityReplies): QmpCommand[] {
  const under = (folder: string, list: unknown) =>
    arrayOf(list).flatMap((entry) => {
      const { name, type } = recordOf(entry);
      if (typeof name !== "string" || !String(type).startsWith("child<")) return [];
      return [{
        execute: "qom-get",
        arguments: { path: `/machine/${folder}/${name}`, property: "mac" },
      }];
    });
  return [...under("peripheral", named), ...under("peripheral-anon", anonymous)];
}

/** Reads the answers. Never throws: an invalid answer counts as unknown. */
export function decodeVmFacts(replies: IdentityReplies, macs: readonly unknown[]): VmFacts {
  const uuid = String(recordOf(replies.uuid).UUID ?? "").toLowerCase().replaceAll("-", "");
  const { name } = recordOf(replies.name);
  const threads = arrayOf(replies.cpus).map((cpu) => Number(recordOf(cpu)["thread-id"]))
    .filter((id) => Number.isSafeInteger(id) && id > 0);
  const devices = [
    `machine ${replies.machine ?? "unknown"}`,
    `memory ${recordOf(replies.memory)["base-memory"] ?? "unknown"}`,
    ...macs.filter((mac) => typeof mac === "string").map((mac) => `mac ${mac.toLowerCase()}`),
    ...arrayOf(replies.drives).flatMap(decodeDrive),
  ];
  return {
    // All zeros means no UUID.
    ...(/^[0-9a-f]{32}$/.test(uuid) && /[^0]/.test(uuid) ? { uuid } : {}),
    ...(typeof name === "string" && name !== "" ? { name } : {}),
    threads: threads.toSorted((a, b) => a - b),
    devices: devices.toSorted(),
  };
}

/** A disk's place and size. Removable media do not belong to the VM. */
function decodeDrive(drive: unknown): string[] {
  const { removable, inserted } = recordOf(drive);
  const { file, image } = recordOf(inserted);
  if (removable === true || inserted === undefined) return [];
  return [`drive ${file ?? "unknown"} ${recordOf(image)["virtual-size"] ?? "unknown"}`];
}

function arrayOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}
