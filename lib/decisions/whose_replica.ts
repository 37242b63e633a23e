/**
 * Whose VM a session is about, and whether it may change what is kept: {@link compareVms} and
 * {@link mayReplace}.
 *
 * **Why no VM's last copy is overwritten by another one's.** What names a VM best decides: its UUID,
 * or else its name. Only where one of the two sides has neither is anything else looked at: the same
 * QEMU process is the same VM; another process with other devices (machine, RAM, MAC addresses, disks)
 * is another VM. What is left cannot be told apart by anything that QEMU tells: two VMs without UUID
 * and name, of the same devices. A restarted VM looks the same, and it is the likelier one; so it is
 * taken, and said loudly.
 *
 * **Why an administrator is never locked out.** Each refusal names both VMs, and has two ways on that
 * say what is meant: `--vm NAME` at the sender, and `--replace` at the receiver.
 */

/** What is known of a VM that somebody protects. What is not known is absent. */
export interface VmIdentity {
  /** As 32 hexadecimal digits. */
  readonly uuid?: string;
  readonly name?: string;
  /** Which QEMU process runs it, as 32 hexadecimal digits. */
  readonly process?: string;
  /** A digest of its devices, as 32 hexadecimal digits. */
  readonly shape?: string;
}

/** How two identities compare, and by what. */
interface VmComparison {
  readonly is: "same" | "other" | "unknown";
  readonly by: "uuid" | "name" | "process" | "shape" | "nothing";
}

/** Compares what is kept with what comes. */
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
  /** It is the VM that is kept, or there is none. */
  | { readonly do: "accept" }
  /** It may be another one, and nothing tells: said loudly, and its stream is looked at too. */
  | { readonly do: "accept-unknown" }
  /** It is another one, and the operator has asked for that. */
  | { readonly do: "replace" }
  | { readonly do: "refuse"; readonly by: VmComparison["by"] };

/** What a receiver knows. */
export interface AtHello {
  /** Whether a replica is kept. */
  readonly hasReplica: boolean;
  /** Whose it is; nothing is known of one that an earlier version kept. */
  readonly kept: VmIdentity;
  readonly coming: VmIdentity;
  /** `--replace`: the VM that has taken the place by it; `unused` as long as none has. */
  readonly replace: "no" | "unused" | VmIdentity;
}

/** Decides whether a sender is admitted. */
export function mayReplace({ hasReplica, kept, coming, replace }: AtHello): Admission {
  if (!hasReplica) return { do: "accept" };
  const { is, by } = compareVms(kept, coming);
  if (is === "same") return { do: "accept" };
  if (is === "unknown") return { do: "accept-unknown" };
  // One VM may take the place, and come back to what it has not taken yet: a third one may not.
  const isMeant = replace === "unused" ||
    replace !== "no" && compareVms(replace, coming).is === "same";
  return isMeant ? { do: "replace" } : { do: "refuse", by };
}

/** What a stream says of its VM before anything else of it. */
export interface StreamShape {
  readonly machine: string;
  /** The capability `x-validate-uuid` puts it there. */
  readonly uuid?: string;
  readonly blocks: readonly { readonly name: string; readonly lengthBytes: number }[];
}

/**
 * Whether a whole stream of a VM that was taken as an unknown one shows it to be another than the
 * replica's.
 *
 * @returns What differs.
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

/** A UUID as people write it. */
export function formatUuid(digits: string): string {
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** How a VM is named in messages. */
export function describeVm(vm: VmIdentity): string {
  const { uuid, name } = vm;
  const id = uuid && formatUuid(uuid);
  if (name !== undefined) return id === undefined ? `VM ${name}` : `VM ${name} (${id})`;
  if (id !== undefined) return `VM ${id}`;
  const mark = vm.shape ?? vm.process;
  return mark === undefined ? "an unnamed VM" : `an unnamed VM (devices ${mark.slice(0, 8)})`;
}
