import { getLogger } from "@logtape/logtape";
import {
  type AtHello,
  describeVm,
  mayReplace,
  otherMachine,
  type StreamShape,
  type VmIdentity,
} from "../../decisions/whose_replica.ts";
import { WireError } from "../../errors.ts";
import { decodeVm } from "../../replica/vm_fields.ts";
import type { Hello } from "../../txn/hello.ts";
import { type CopyNote, CopyOwner } from "./copy_owner.ts";

const log = getLogger(["kemari", "recv"]);

/** How long the end of `recv` waits until the disks' storage has a note. */
const NOTE_MS = 1000;

/**
 * Which VM the replica belongs to: admits or refuses a session before anything of it is taken.
 *
 * ```text
 * nobody's ──admit()──► coming ──committed()──► kept ──admit() the same──► coming …
 *                                                └──admit() another: refused, unless --replace
 * ```
 */
export class ReplicaOwner {
  #kept: VmIdentity = {};
  /** The VM of the session, as its sender describes it. */
  #said: VmIdentity = {};
  #coming: VmIdentity = {};
  #replace: AtHello["replace"];
  /** The VM that is kept, if only the stream can show whether the session has the same VM. */
  #unknown: { readonly vm: VmIdentity; readonly what: string }[] = [];
  /** Whether the disks' copies have a note of the session's VM. */
  #isNoted = false;
  /** What {@link #replace} becomes when the session has committed, if its VM takes the place. */
  #replacing: VmIdentity | "no" | undefined;

  readonly #copies: CopyOwner;
  /** The VMs of the copies, as they were last read. */
  #notes: readonly CopyNote[] = [];

  /**
   * @param mayReplace `--replace`.
   * @param copies The copies of the VM's disks: even without a replica they may belong to another
   *   VM.
   */
  constructor(mayReplace = false, copies = new CopyOwner([])) {
    this.#replace = mayReplace ? "unused" : "no";
    this.#copies = copies;
  }

  /** The VM whose replica is kept, as far as known. */
  get kept(): VmIdentity {
    return this.#kept;
  }
  /** The VM whose replica this is when the session has committed. */
  get coming(): VmIdentity {
    return this.#coming;
  }

  /** Goes on with the replica of an earlier process. */
  adopt(vm: VmIdentity): void {
    this.#kept = vm;
  }

  /**
   * Reads which VMs the disks' copies belong to; their storage may not answer. To be called before
   * {@link admit}.
   */
  async look(): Promise<void> {
    this.#notes = await this.#copies.owners();
  }

  /**
   * Judges a sender by the VM that it describes.
   *
   * @param committed The last transaction of the replica; 0 if there is none.
   * @throws {WireError} `other-vm`.
   */
  admit(hello: Hello, offset: number, committed: number): void {
    const coming = this.#said = decodeVm(hello.fields, offset);
    this.#isNoted = false;
    this.#unknown = [];
    this.#replacing = undefined;
    if (committed > 0) this.#admit(coming, offset, committed, this.#kept);
    else {
      this.#coming = coming;
      for (const { path, vm } of this.#notes) {
        this.#admit(coming, offset, committed, vm, path);
      }
    }
  }

  #admit(coming: VmIdentity, offset: number, committed: number, kept: VmIdentity, copy = ""): void {
    const admission = mayReplace({ hasReplica: true, kept, coming, replace: this.#replace });
    const what = copy === "" ? `transaction ${committed}` : `a disk's copy, ${copy},`;
    // If the sender is older, or says less, the identity that is kept stays.
    this.#coming = admission.do === "replace" ? coming : { ...kept, ...coming };
    switch (admission.do) {
      case "refuse":
        throw otherVm(offset, kept, coming, what, "");
      case "replace":
        this.#replacing = coming;
        return log.warn(
          "{coming} is about to replace {what} of {kept}, as --replace allows",
          { coming: describeVm(coming), kept: describeVm(kept), what },
        );
      case "accept-unknown":
        this.#unknown.push({ vm: kept, what });
        log.warn(
          "kemari cannot tell whether the sender's VM ({coming}) is the one that is kept " +
            "({kept}, {what}): taken as the same; give VMs a UUID or a name, or --vm",
          { coming: describeVm(coming), kept: describeVm(kept), what },
        );
    }
  }

  /**
   * Judges a full stream by its beginning, before anything of it is kept.
   *
   * @param kept The beginning of the replica's own stream; undefined if there is no replica.
   * @throws {WireError} `other-vm` if it shows that an unknown VM is another one.
   */
  admitStream(coming: StreamShape, kept: StreamShape | undefined): void {
    for (const { vm, what } of this.#unknown) {
      const uuid = kept?.uuid ?? vm.uuid;
      const difference = otherMachine({ ...kept ?? coming, uuid }, coming);
      if (difference === undefined) continue;
      // Only the stream tells this VM from a third one, so the first VM that commits takes the
      // place.
      if (this.#replace !== "unused") throw otherVm(0, vm, this.#said, what, `, by ${difference}`);
      this.#coming = this.#said;
      this.#replacing = "no";
      log.warn("another VM, by {difference}, is about to replace {what}, as --replace allows", {
        difference,
        what,
      });
    }
  }

  /** The session has committed: the replica belongs to its VM now. */
  committed(): void {
    this.#kept = this.#coming;
    // --replace lets one VM take the place: the first that commits something.
    if (this.#replacing !== undefined) this.#replace = this.#replacing;
    this.#replacing = undefined;
    // From here on the VM is known by what was committed.
    this.#unknown = [];
    if (this.#isNoted) return;
    this.#isNoted = true;
    // If the note cannot be written, a later process does not know the owner.
    this.#copies.note(this.#kept).catch(() => {});
  }

  /** The VM runs here: its disks are not copies any more. */
  activated(): void {
    this.#copies.clear().catch(() => {});
  }

  /** Waits a moment until the notes on the copies are written. */
  async close(): Promise<void> {
    await this.#copies.settle(NOTE_MS);
  }
}

function otherVm(
  offset: number,
  kept: VmIdentity,
  coming: VmIdentity,
  what: string,
  why: string,
): WireError {
  return new WireError(
    "transaction",
    offset,
    "other-vm",
    `it keeps ${what} of ${describeVm(kept)}, and the sender's is another one, ` +
      `${describeVm(coming)}${why}`,
    { hint: "start recv with --replace if what it keeps is to be overwritten" },
  );
}
