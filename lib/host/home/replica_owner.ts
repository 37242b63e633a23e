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

/** How long an end waits for the disks' storage to take a note. */
const NOTE_MS = 1000;

/**
 * Whose VM the replica is: admits a session or refuses it, before anything of it is taken.
 *
 * ```text
 * nobody's ──admit()──► coming ──committed()──► kept ──admit() the same──► coming …
 *                                                └──admit() another: refused, unless --replace
 * ```
 */
export class ReplicaOwner {
  #kept: VmIdentity = {};
  /** What the session's sender has said. */
  #said: VmIdentity = {};
  #coming: VmIdentity = {};
  #replace: AtHello["replace"];
  /** What is kept, where only its stream can show whether that is the session's VM's. */
  #unknown: { readonly vm: VmIdentity; readonly what: string }[] = [];
  /** Whether the disks' copies are noted as the session's VM's. */
  #isNoted = false;
  /** What {@link #replace} is once the session has committed, where it takes the place. */
  #replacing: VmIdentity | "no" | undefined;

  readonly #copies: CopyOwner;
  /** Whose the copies are, as far as was seen last. */
  #notes: readonly CopyNote[] = [];

  /**
   * @param mayReplace `--replace`.
   * @param copies Of the VM's disks: they may be another's, though there is no replica.
   */
  constructor(mayReplace = false, copies = new CopyOwner([])) {
    this.#replace = mayReplace ? "unused" : "no";
    this.#copies = copies;
  }

  /** Whose replica is kept, as far as known. */
  get kept(): VmIdentity {
    return this.#kept;
  }
  /** Whose replica it is once the session has committed. */
  get coming(): VmIdentity {
    return this.#coming;
  }

  /** Goes on with what an earlier process kept. */
  adopt(vm: VmIdentity): void {
    this.#kept = vm;
  }

  /** Looks whose copies the disks are, which their storage may keep to itself: before {@link admit}. */
  async look(): Promise<void> {
    this.#notes = await this.#copies.owners();
  }

  /**
   * Judges who comes.
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
    // What names the replica stays, where the sender is older or says less.
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
          "it cannot be told whether the sender's VM ({coming}) is the one that is kept ({kept}, " +
            "{what}): taken as the same; give VMs a UUID or a name, or --vm",
          { coming: describeVm(coming), kept: describeVm(kept), what },
        );
    }
  }

  /**
   * Looks at the beginning of a whole stream, before anything of it is kept.
   *
   * @param kept What the replica's own said; nothing if there is none.
   * @throws {WireError} `other-vm` for one that was taken as unknown.
   */
  admitStream(coming: StreamShape, kept: StreamShape | undefined): void {
    for (const { vm, what } of this.#unknown) {
      const uuid = kept?.uuid ?? vm.uuid;
      const difference = otherMachine({ ...kept ?? coming, uuid }, coming);
      if (difference === undefined) continue;
      // Only its stream tells it from a third one, so the place is taken by the first that commits.
      if (this.#replace !== "unused") throw otherVm(0, vm, this.#said, what, `, by ${difference}`);
      this.#coming = this.#said;
      this.#replacing = "no";
      log.warn("another VM, by {difference}, is about to replace {what}, as --replace allows", {
        difference,
        what,
      });
    }
  }

  /** The replica is the session's VM's now. */
  committed(): void {
    this.#kept = this.#coming;
    // One VM may take the place: the first that has something to put there.
    if (this.#replacing !== undefined) this.#replace = this.#replacing;
    this.#replacing = undefined;
    // What it is from here on is known by what was committed.
    this.#unknown = [];
    if (this.#isNoted) return;
    this.#isNoted = true;
    // Where it cannot be noted it is not known later.
    this.#copies.note(this.#kept).catch(() => {});
  }

  /** The VM runs here: its disks are no copies any more. */
  activated(): void {
    this.#copies.clear().catch(() => {});
  }

  /** Whose the copies are is being written: waits for that, no longer than a moment. */
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
