import { type DiskUnfit, whyUnfit } from "../../decisions/disk_fitness.ts";
import { type TransportError, WireError } from "../../errors.ts";
import { decodeDiskQuery, type DiskQuery } from "./disk_digest.ts";
import { type Done, raise } from "./done.ts";
import { unfitDisk } from "./unfit_disk.ts";
import { PendingWrites } from "./pending_writes.ts";
import {
  decodeTapEvent,
  decodeTapInput,
  EVENT_OVERHEAD_BYTES,
  INPUT_BYTES_PER_EPOCH,
  type TapEvent,
  type TapInput,
} from "./tap_events.ts";
import { checkDiskEvent } from "./check_disk_event.ts";
import { refuse } from "../../txn/wire_fault.ts";
import { MOST_UNRELEASED_BYTES, type Unreleased, UnreleasedOutput } from "./unreleased_output.ts";
import { SessionDisks } from "./session_disks.ts";
import type { DiskCopy, SecondaryDiskConfig } from "./disk_copy.ts";

/** Bytes of frames for a NIC that are kept: those of some epochs. */
export const KEPT_INPUT_BYTES = 4 * INPUT_BYTES_PER_EPOCH;
/** The most bytes that a kept frame takes beside its data. */
const INPUT_OVERHEAD_BYTES = 128;
/** A frame that came within this time before a commit may be missing in its state. */
const ON_ITS_WAY_MS = 100;

/**
 * Bytes of committed writes that may wait in memory for the copies' storage: a stall of the storage
 * costs the primary nothing until then.
 */
const MOST_PENDING_BYTES = 256 * 2 ** 20;

/** A frame for the guest. */
interface KeptInput extends TapInput {
  /** The transaction whose state has the frame, unless the frame was still on its way then. */
  readonly transaction: number;
  readonly atMs: number;
}

/**
 * The secondary's share of the event-tap: the content of EVENT and INPUT frames.
 *
 * ```text
 * EVENT ─stage()─► staged ─commit(n)─► replicated writes: applied, in order
 *                    │                 packets, shared writes: kept until released(n)
 *                    └─abort()─► gone
 * INPUT ──input()─► kept until a commit that has it: forgetInputs()
 * ```
 *
 * Applying is separate from committing: the copy's storage may take its time, and the transaction
 * is committed, and may be acknowledged, while writes that the copy lacks are in this object's
 * memory. If a disk refuses a write, that write and the following ones stay pending, and {@link
 * applyPending} tries again. The VM must not run here while anything is pending.
 */
export class SecondaryTaps {
  readonly #disks: ReadonlyMap<string, SecondaryDiskConfig>;
  readonly #nets: ReadonlySet<string>;
  #staged: { readonly event: TapEvent; readonly bytes: number }[] = [];
  #stagedBytes = 0;
  /** The committed writes that the copies lack, by disk. */
  readonly #pending = new Map<string, PendingWrites>();
  /** Called when no write is under way to a copy. */
  #waiting: Done[] = [];
  readonly #unreleased: UnreleasedOutput;
  /** Replicated disks whose first copy is complete in a committed transaction. */
  readonly #copied = new Set<string>();
  /** Disks whose copy is incomplete without the writes in this object's memory. */
  readonly #filling = new Set<string>();
  /**
   * The disks named by the session whose state is committed; undefined if that was not noted. Empty
   * without such a state.
   */
  #named: ReadonlySet<string> | undefined = new Set();
  #hasState = false;
  /** What the open session has said about its disks. */
  readonly #sessionDisks = new SessionDisks();
  /** The seed under which the session asks for digests of disks. */
  #diskSeed: string | undefined;
  /** Shared disks that the primary has written since the last commit here. */
  readonly #outrun = new Set<string>();
  readonly #macs = new Map<string, Uint8Array>();
  #inputs: KeptInput[] = [];
  #inputBytes = 0;

  /** How many bytes may be pending at an acknowledgement: beyond that acknowledgements wait. */
  mostPendingBytes = MOST_PENDING_BYTES;
  /** A copy has refused committed writes. No write to it is under way now. */
  onRefused: (error: Error) => void = raise;
  /** Nothing is pending any more. */
  onApplied: () => void = () => {};

  /**
   * @param keepsInputs Whether frames for the guest are kept, if the sender copies them.
   * @param mostUnreleased Bytes that may be kept of what is to be released, for a tap.
   */
  constructor(
    disks: ReadonlyMap<string, SecondaryDiskConfig>,
    nets: ReadonlySet<string>,
    readonly keepsInputs = nets.size > 0,
    mostUnreleased = MOST_UNRELEASED_BYTES,
  ) {
    this.#unreleased = new UnreleasedOutput(mostUnreleased);
    this.#disks = disks;
    this.#nets = nets;
    for (const [name, { copy }] of disks) {
      if (copy === undefined) continue;
      this.#pending.set(name, new PendingWrites(copy, (failure) => this.#settled(failure)));
    }
  }

  /** Bytes of events in the open transaction. */
  get stagedBytes(): number {
    return this.#stagedBytes;
  }
  /** How many writes are committed and not applied yet. */
  get pendingWrites(): number {
    return sum(this.#pending.values(), ({ count }) => count);
  }
  /** Bytes of memory that the pending writes take. */
  get pendingBytes(): number {
    return sum(this.#pending.values(), ({ bytes }) => bytes);
  }
  get unreleased(): readonly Unreleased[] {
    return this.#unreleased.all;
  }
  /**
   * The world's frames for the guest since a little before the committed state, in order: the guest
   * may not have had them in that state, and if it got them later, it lost them with the primary.
   */
  get inputs(): readonly TapInput[] {
    return this.#inputs;
  }
  /** The hardware address that each NIC last sent from, by tap. */
  get macs(): ReadonlyMap<string, Uint8Array> {
    return this.#macs;
  }
  /** The disks on this end's command line. */
  get diskNames(): readonly string[] {
    return [...this.#disks.keys()];
  }

  /** Disks, beside those of {@link unfit}, that are incomplete: their copy has refused a write. */
  get incomplete(): readonly string[] {
    return this.diskNames.filter((name) => this.#whyUnfit(name) || this.#isHalfCopied(name));
  }

  /** Whether a copy has refused a write of its first filling: that may last. */
  #isHalfCopied(name: string): boolean {
    return this.#filling.has(name) && this.#pending.get(name)?.failure !== undefined;
  }

  #whyUnfit(name: string): DiskUnfit | undefined {
    if (!this.#hasState) return undefined;
    return whyUnfit({
      name,
      mode: this.#disks.get(name)!.mode,
      isNamed: this.#named?.has(name),
      isCopied: this.#copied.has(name),
      isOutrun: this.#outrun.has(name),
    });
  }

  /**
   * Checks that the VM can go on here: that all disks fit the committed state. Writes that a copy
   * has refused do not count: {@link finishPending} tries them again.
   */
  get unfit(): TransportError | undefined {
    for (const name of this.diskNames) {
      const why = this.#whyUnfit(name);
      if (why !== undefined) return unfitDisk(name, why);
    }
    return undefined;
  }

  /** @throws {TransportError} see {@link unfit}. */
  requireWhole(): void {
    const unfit = this.unfit;
    if (unfit !== undefined) throw unfit;
  }

  /**
   * A session begins: its sender has gone on without this end since the last session, and so have
   * its disks. Committed writes go to the copies before anything of the new session.
   */
  sessionBegins(): void {
    this.applyPending();
    this.#sessionDisks.begin();
    this.#diskSeed = undefined;
    this.#inputs = [];
    this.#inputBytes = 0;
    for (const [name, { mode }] of this.#disks) if (mode === "shared") this.#outrun.add(name);
  }

  /**
   * Takes over what an earlier process has stored as the committed state.
   *
   * @param named The disks that belong to that state; undefined if that was not noted.
   */
  adopt(named: readonly string[] | undefined): void {
    this.#hasState = true;
    this.#named = named && new Set(named);
    for (const name of named ?? []) this.#copied.add(name);
  }

  /**
   * @throws {WireError} if the open transaction is a session's first, and does not name all disks
   * here.
   */
  requireNamed(): void {
    const missing = this.#sessionDisks.unnamed(this.#disks.keys()).join(", ");
    if (missing === "") return;
    refuse(
      0,
      "bad-order",
      `recv has disk ${missing}, which the session's first transaction does not name: the copy ` +
        `here ` +
        "fits no state of that VM; give both sides the same --disk",
    );
  }

  /**
   * Takes one INPUT payload, which is copied.
   *
   * @param transaction The transaction whose state will have it.
   * @throws {WireError}
   */
  input(transaction: number, payload: Uint8Array, offset: number, nowMs: number): void {
    const { tap, frame } = decodeTapInput(payload.slice(), offset);
    this.#requireNet(tap, "an input", offset);
    this.#inputs.push({ tap, frame, transaction, atMs: nowMs });
    this.#inputBytes += frame.length + INPUT_OVERHEAD_BYTES;
    while (this.#inputBytes > KEPT_INPUT_BYTES * this.#nets.size) {
      this.#inputBytes -= this.#inputs.shift()!.frame.length + INPUT_OVERHEAD_BYTES;
    }
  }

  /** Forgets the inputs that the state of a committed transaction has. */
  forgetInputs(transaction: number, nowMs: number): void {
    if (this.#inputs.length === 0) return;
    this.#inputs = this.#inputs.filter((each) =>
      each.transaction > transaction || nowMs - each.atMs < ON_ITS_WAY_MS
    );
    this.#inputBytes = this.#inputs.reduce(
      (sum, { frame }) => sum + frame.length + INPUT_OVERHEAD_BYTES,
      0,
    );
  }

  /** Takes an EVENT payload, which this object owns from then on. @throws {WireError} */
  stage(payload: Uint8Array, offset: number): void {
    const event = decodeTapEvent(payload, offset);
    if (event.kind === "packet") this.#requireNet(event.tap, "a packet", offset);
    else {
      checkDiskEvent(event, this.#disks.get(event.tap), offset);
      const fault = this.#sessionDisks.stage(event);
      if (fault !== undefined) refuse(offset, "bad-order", fault);
    }
    const bytes = payload.length + EVENT_OVERHEAD_BYTES;
    if (event.kind === "disk") this.#unreleased.renew(event.tap);
    else if (this.#isReleased(event)) this.#unreleased.stage(event, bytes, offset);
    this.#staged.push({ event, bytes });
    this.#stagedBytes += bytes;
  }

  /**
   * Takes a DISK_QUERY payload.
   *
   * @returns The query, and the copy to answer from; its content at any moment from now on will do,
   *   since all writes committed before have been given to it.
   * @throws {WireError} if there is no such copy, or the range goes beyond its end.
   */
  diskQuery(payload: Uint8Array, offset: number): { query: DiskQuery; copy: DiskCopy } {
    const query = decodeDiskQuery(payload, offset);
    const seed = `${query.seedHigh} ${query.seedLow}`;
    if (seed !== (this.#diskSeed ??= seed)) {
      refuse(offset, "bad-value", "a DISK_QUERY under another seed than the session's first");
    }
    const copy = this.#disks.get(query.tap)?.copy;
    const end = query.offset + query.lengthBytes;
    const size = copy?.sizeBytes ?? 0;
    if (copy === undefined || end > size || end < size && end % query.chunkBytes !== 0) {
      const what = copy === undefined
        ? `no replicated disk ${query.tap}`
        : `disk ${query.tap} with ${size} bytes, not chunks up to ${end}`;
      throw new WireError("transaction", offset, "bad-value", `a DISK_QUERY: here is ${what}`, {
        hint: `give both sides --disk ${query.tap}=… with images of the same size`,
      });
    }
    return { query, copy };
  }

  /**
   * Makes the staged events part of the committed state. Their writes are given to the copies, and
   * may be pending for a while, until {@link onApplied} or {@link onRefused} is called.
   */
  commit(transaction: number): void {
    for (const { event, bytes } of this.#staged) {
      if (this.#isReleased(event)) this.#unreleased.add(transaction, event, bytes);
      switch (event.kind) {
        case "packet":
          this.#macs.set(event.tap, event.frame.subarray(6, 12));
          break;
        case "disk":
          // Events that an earlier session left unreleased, the primary has released by itself.
          this.#unreleased.forgetDisk(event.tap, transaction);
          this.#copied.delete(event.tap);
          this.#outrun.delete(event.tap);
          break;
        case "copied":
          this.#copied.add(event.tap);
          this.#filling.add(event.tap);
          break;
        default:
          if (!this.#isReleased(event)) this.#pending.get(event.tap)?.add(event);
      }
    }
    this.#sessionDisks.commit();
    this.#hasState = true;
    // Each session that commits anything has named all disks.
    this.#named = new Set(this.#disks.keys());
    this.abort();
    this.applyPending();
  }

  /** Drops the staged events of the open transaction. */
  abort(): void {
    this.#sessionDisks.abort();
    this.#unreleased.unstage();
    this.#staged = [];
    this.#stagedBytes = 0;
  }

  /** The primary has released everything up to this transaction. */
  released(transaction: number): void {
    this.#unreleased.released(transaction);
  }

  /** Whether an event is the primary's to release, and until then kept here. */
  #isReleased({ kind, tap }: TapEvent): boolean {
    if (kind === "packet") return true;
    const isWrite = kind === "write" || kind === "zero";
    return isWrite && this.#disks.get(tap)!.mode === "shared";
  }

  /**
   * Gives the copies the writes that they have not been given, in order, and again those that they
   * refused.
   */
  applyPending(): void {
    for (const pending of this.#pending.values()) pending.apply();
    this.#forgetFilled();
  }

  #forgetFilled(): void {
    for (const name of this.#filling) {
      if (this.#pending.get(name)?.count === 0) this.#filling.delete(name);
    }
  }

  /**
   * Finishes the committed writes: then nothing is pending, or a copy has refused a write.
   *
   * @param done Called at once, or when the copies' storage has answered.
   */
  finishPending(done: Done): void {
    if (this.pendingWrites === 0) return done();
    this.#waiting.push(done);
    this.applyPending();
  }

  /** A copy has no write under way any more. */
  #settled(failure: Error | undefined): void {
    this.#forgetFilled();
    const isDone = this.pendingWrites === 0;
    if (!isDone && failure === undefined) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const done of waiting) done(failure);
    if (isDone) this.onApplied();
    // The error has been given to those who wait.
    else if (waiting.length === 0) this.onRefused(failure!);
  }

  #requireNet(tap: string, what: string, offset: number): void {
    if (this.#nets.has(tap)) return;
    throw new WireError("transaction", offset, "bad-value", `${what} of net tap ${tap}`, {
      hint: `give recv --net ${tap}=IN,OUT`,
    });
  }
}

function sum<T>(items: Iterable<T>, of: (item: T) => number): number {
  let total = 0;
  for (const item of items) total += of(item);
  return total;
}
