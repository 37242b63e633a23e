/**
 * Whether a session is of the VM whose replica is kept, and whether it may replace that: {@link
 * compareVms} and {@link mayReplace}.
 *
 * **Why no VM's last copy is overwritten by another one's.** The best name decides: the UUID, or
 * else the name. Only if one of the two has neither, other facts count: the same QEMU process is
 * the same VM; another process with other devices (machine, RAM, MAC addresses, disks) is another
 * VM. The remaining case is two VMs without UUID and name, with the same devices, which QEMU's
 * answers cannot distinguish. A restarted VM looks the same, and is more likely; so the session is
 * admitted, with a warning.
 *
 * **Why an administrator is never locked out.** Each refusal names both VMs, and there are two ways
 * to go on explicitly: `--vm NAME` at the sender, and `--replace` at the receiver.
 */

/** The identity of a protected VM. What is not known is absent. */
export interface VmIdentity {
  /** As 32 hexadecimal digits. */
  readonly uuid?: string;
  readonly name?: string;
  /** Which QEMU process runs it, as 32 hexadecimal digits. */
  readonly process?: string;
  /** A digest of its devices, as 32 hexadecimal digits. */
  readonly shape?: string;
}

/** The result of comparing two identities, and what decided. */
interface VmComparison {
  readonly is: "same" | "other" | "unknown";
  readonly by: "uuid" | "name" | "process" | "shape" | "nothing";
}

/** Compares the VM that is kept with the one that comes. */
export function compareVms(kept: VmIdentity, coming: VmIdentity): VmComparison {
  for (const by of ["uuid", "name"] as const) {
    if (kept[by] === undefined || coming[by] === undefined) continue;
    return { is: kept[by] === coming[by] ? "same" : "other", by };
  }
  if (kept.process !== undefined && kept.process === coming.process) {
    return { is: "same", by: "process" };
  }
  if (kept.shape === undefined || coming.shape === undefined) {
    return { is: "unknown", by: "nothing" };
  }
  return { is: kept.shape === coming.shape ? "unknown" : "other", by: "shape" };
}

/** What a receiver does with a sender. */
export type Admission =
  /** It has the VM that is kept, or none is kept. */
  | { readonly do: "accept" }
  /** It may have another VM, which cannot be known: warn, and examine its stream too. */
  | { readonly do: "accept-unknown" }
  /** It has another VM, and the operator allows that. */
  | { readonly do: "replace" }
  | { readonly do: "refuse"; readonly by: VmComparison["by"] };

/** What a receiver knows. */
export interface AtHello {
  /** Whether a replica is kept. */
  readonly hasReplica: boolean;
  /** The VM that is kept; nothing is known if an earlier version kept it. */
  readonly kept: VmIdentity;
  readonly coming: VmIdentity;
  /** `--replace`: the VM that has taken the place by this option; `unused` as long as none has. */
  readonly replace: "no" | "unused" | VmIdentity;
}

/** Decides whether a sender is admitted. */
export function mayReplace({ hasReplica, kept, coming, replace }: AtHello): Admission {
  if (!hasReplica) return { do: "accept" };
  const { is, by } = compareVms(kept, coming);
  if (is === "same") return { do: "accept" };
  if (is === "unknown") return { do: "accept-unknown" };
  // One VM may take the place, and come again if it has not taken everything yet; a third VM may
  // not.
  const isMeant = replace === "unused" ||
    replace !== "no" && compareVms(replace, coming).is === "same";
  return isMeant ? { do: "replace" } : { do: "refuse", by };
}

/** The beginning of a stream, which describes its VM. */
export interface StreamShape {
  readonly machine: string;
  /** The UUID, if the capability `x-validate-uuid` is on. */
  readonly uuid?: string;
  readonly blocks: readonly { readonly name: string; readonly lengthBytes: number }[];
}

/**
 * Compares the full stream of a VM that may be another one with the replica.
 *
 * @returns The difference, if it is another VM.
 */
export function otherMachine(kept: StreamShape, coming: StreamShape): string | undefined {
  if (kept.uuid !== undefined && coming.uuid !== undefined) {
    return kept.uuid === coming.uuid ? undefined : "the UUID in its stream";
  }
  if (kept.machine !== coming.machine) return `its machine, ${coming.machine}`;
  const isSame = kept.blocks.length === coming.blocks.length &&
    kept.blocks.every((block, i) => {
      const other = coming.blocks[i];
      return block.name === other.name && block.lengthBytes === other.lengthBytes;
    });
  return isSame ? undefined : "its RAM and devices";
}

/** A UUID with dashes. */
export function formatUuid(digits: string): string {
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** A VM's name in messages. */
export function describeVm(vm: VmIdentity): string {
  const { uuid, name } = vm;
  const id = uuid && formatUuid(uuid);
  if (name !== undefined) return id === undefined ? `VM ${name}` : `VM ${name} (${id})`;
  if (id !== undefined) return `VM ${id}`;
  const mark = vm.shape ?? vm.process;
  return mark === undefined ? "an unnamed VM" : `an unnamed VM (devices ${mark.slice(0, 8)})`;
}
