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
import type { Hello } from "../../txn/wire.ts";
import { CopyOwner } from "./copy_owner.ts";

const log = getLogger(["kemari", "recv"]);

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
  /** Whether only its stream can show whose the session is. */
  #isUnknown = false;
  /** Whether the disks' copies are noted as the session's VM's. */
  #isNoted = false;
  /** An unnamed VM, which its stream shows to be another one, is taking the place. */
  #isReplacing = false;

  readonly #copies: CopyOwner;

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

  /**
   * Looks at who comes.
   *
   * @param committed The last transaction of the replica; 0 if there is none.
   * @throws {WireError} `other-vm`.
   */
  admit(hello: Hello, offset: number, committed: number): void {
    const coming = this.#said = decodeVm(hello.fields, offset);
    this.#isUnknown = this.#isNoted = this.#isReplacing = false;
    if (committed > 0) this.#admit(coming, offset, committed, this.#kept);
    else {
      this.#coming = coming;
      for (const { path, vm } of this.#copies.owners) {
        this.#admit(coming, offset, committed, vm, path);
      }
    }
  }

  #admit(coming: VmIdentity, offset: number, committed: number, kept: VmIdentity, copy = ""): void {
    const admission = mayReplace({ hasReplica: true, kept, coming, replace: this.#replace });
    const what = copy === "" ? `transaction ${committed}` : `a disk's copy, ${copy},`;
    this.#isUnknown = admission.do === "accept-unknown";
    // What names the replica stays, where the sender is older or says less.
    this.#coming = admission.do === "replace" ? coming : { ...kept, ...coming };
    switch (admission.do) {
      case "refuse":
        throw otherVm(offset, kept, coming, what, "");
      case "replace":
        this.#replace = coming;
        return log.warn(
          "{coming} is about to replace {what} of {kept}, as --replace allows",
          { coming: describeVm(coming), kept: describeVm(kept), what },
        );
      case "accept-unknown":
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
  admitStream(coming: StreamShape, kept: StreamShape | undefined, committed: number): void {
    if (!this.#isUnknown || kept === undefined) return;
    const uuid = kept.uuid ?? this.#kept.uuid;
    const difference = otherMachine({ ...kept, uuid }, coming);
    if (difference === undefined) return;
    const what = `transaction ${committed}`;
    // Only its stream tells it from a third one, so the place is taken by the first that commits.
    if (this.#replace !== "unused") {
      throw otherVm(0, this.#kept, this.#said, what, `, by ${difference}`);
    }
    this.#coming = this.#said;
    this.#isReplacing = true;
    log.warn("another VM, by {difference}, is about to replace {what}, as --replace allows", {
      difference,
      what,
    });
  }

  /** The replica is the session's VM's now. */
  committed(): void {
    this.#kept = this.#coming;
    if (this.#isReplacing) this.#replace = "no";
    this.#isReplacing = false;
    // What it is from here on is known by what was committed.
    this.#isUnknown = false;
    if (this.#isNoted) return;
    this.#isNoted = true;
    // Where it cannot be noted it is not known later.
    this.#copies.note(this.#kept).catch(() => {});
  }

  /** The VM runs here: its disks are no copies any more. */
  activated(): void {
    this.#copies.clear().catch(() => {});
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
