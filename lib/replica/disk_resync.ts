import { Buffer } from "node:buffer";
import { WireError } from "../errors.ts";
import { DIGEST_BYTES } from "../txn/wire.ts";
import {
  decodeDigestRun,
  type DigestedDisk,
  type DiskDigestRun,
  encodeDiskQuery,
  endOfRun,
  isZero,
} from "./disk_digest.ts";
import type { DiskTap } from "./disk_tap.ts";
import type { PageDigest } from "./page_digest.ts";

/** Compared, and sent, in one go. */
export const RESYNC_CHUNK_BYTES = 256 * 1024;
/** How far the secondary is asked ahead of what has been compared. */
const AHEAD_BYTES = 32 * 2 ** 20;
/** One query's range, unless it is one of zeros here: those cost nothing to compare. */
const QUERY_BYTES = 16 * 2 ** 20;
const MAX_QUERY_BYTES = 64 * 2 ** 30;
/** Parts that are looked at in one step, whatever they cost. */
const PARTS_PER_STEP = 256;

/** What to do about a secondary's copy at the beginning of a session. */
export type ResyncPlan =
  /** It is known to be equal. */
  | { readonly kind: "none" }
  /** Nothing is known of it, and it cannot be asked: everything is sent. */
  | { readonly kind: "copy" }
  /** It is asked for digests under this seed, and what differs is sent. */
  | {
    readonly kind: "compare";
    readonly seedLow: number;
    readonly seedHigh: number;
    readonly digest: PageDigest;
  };

/** How far a disk has come, in bytes of it. */
export interface ResyncProgress {
  /** Compared, or copied without; the whole disk when it is done. */
  readonly doneBytes: number;
  /** Of those, found equal. */
  readonly equalBytes: number;
  /** Of those, sent. */
  readonly sentBytes: number;
}

/**
 * Brings a secondary's copy of a replicated disk in step, from the front to the back, while the VM
 * runs and writes.
 *
 * The secondary tells digests of its chunks; those that differ from ours are sent. Wherever the
 * copy stands when a session begins (half copied, once complete and left behind, the old primary's
 * own disk) only that is sent. A chunk is read, compared and recorded in one go, and the tap
 * records the guest's writes in front of that place and not behind it: those are in the image when
 * it gets there. So for every byte either the secondary has it at that moment, or it is sent; and
 * every later write travels, in order.
 *
 * ```text
 * waiting ──begin()──► asking: takeQuery(), receive(), step() … ──► done, "copied" is recorded
 * ```
 */
export class DiskResync {
  readonly #tap: DiskTap;
  readonly #image: DigestedDisk;
  #plan: ResyncPlan | undefined;
  #offset = 0;
  #equalBytes = 0;
  #sentBytes = 0;
  #done = false;
  /** Queries without a whole answer, oldest first. */
  #asked: { readonly end: number }[] = [];
  #askedTo = 0;
  #answeredTo = 0;
  #runs: DiskDigestRun[] = [];
  readonly #chunk = new Uint8Array(RESYNC_CHUNK_BYTES);

  constructor(tap: DiskTap, image: DigestedDisk) {
    this.#tap = tap;
    this.#image = image;
  }

  get done(): boolean {
    return this.#done;
  }
  get progress(): ResyncProgress {
    return {
      doneBytes: this.#offset,
      equalBytes: this.#equalBytes,
      sentBytes: this.#sentBytes,
    };
  }
  /** True from the moment at which what is to be done is known. */
  get begun(): boolean {
    return this.#plan !== undefined;
  }

  /** Another secondary, or the same come back: nothing is known of its copy. */
  reset(): void {
    this.#plan = undefined;
    this.#offset =
      this.#askedTo =
      this.#answeredTo =
      this.#equalBytes =
      this.#sentBytes =
        0;
    this.#asked = [];
    this.#runs = [];
    this.#done = false;
    this.#tap.recordBelow(0);
  }

  begin(plan: ResyncPlan): void {
    this.#plan = plan;
    if (plan.kind === "none") {
      this.#offset = this.#equalBytes = this.#image.sizeBytes;
      this.#finish();
    }
  }

  /**
   * The next question for the secondary, as a DISK_QUERY payload, if it is time for one. Its answer
   * is to be given to {@link receive}, behind those of the questions before.
   */
  takeQuery(): Uint8Array | undefined {
    const plan = this.#plan;
    const size = this.#image.sizeBytes;
    if (plan?.kind !== "compare" || this.#askedTo === size) return undefined;
    if (this.#askedTo - this.#offset >= AHEAD_BYTES) return undefined;
    const left = size - this.#askedTo;
    const zeros = this.#image.zeroBytes(this.#askedTo, Math.min(left, MAX_QUERY_BYTES));
    const wanted = Math.max(QUERY_BYTES, zeros - zeros % RESYNC_CHUNK_BYTES);
    const lengthBytes = Math.min(left, wanted);
    const query = encodeDiskQuery({
      tap: this.#tap.name,
      seedLow: plan.seedLow,
      seedHigh: plan.seedHigh,
      chunkBytes: RESYNC_CHUNK_BYTES,
      offset: this.#askedTo,
      lengthBytes,
    });
    this.#askedTo += lengthBytes;
    this.#asked.push({ end: this.#askedTo });
    return query;
  }

  /**
   * Takes the next part of the oldest answer.
   *
   * @throws {WireError} where it does not answer the question.
   */
  receive(payload: Uint8Array, last: boolean): void {
    const end = this.#asked[0]?.end ?? this.#answeredTo;
    const run = decodeDigestRun(payload, RESYNC_CHUNK_BYTES, this.#answeredTo, end);
    const answeredTo = endOfRun(run, RESYNC_CHUNK_BYTES, end);
    if (answeredTo === this.#answeredTo && !last) {
      throw new WireError(
        "transaction",
        answeredTo,
        "bad-value",
        "a DISK_DIGEST that says nothing",
      );
    }
    this.#answeredTo = answeredTo;
    this.#runs.push(run);
    if (last !== (this.#answeredTo === end)) {
      throw new WireError(
        "transaction",
        this.#answeredTo,
        "bad-value",
        last ? `a DISK_DIGEST is the last one, and not at ${end}` : "a DISK_DIGEST without an end",
      );
    }
    if (last) this.#asked.shift();
  }

  /**
   * Compares, or copies, and records what is to be sent.
   *
   * @param budgetBytes To be read at the most, give or take a chunk; holes cost nothing.
   * @returns Bytes that were read.
   * @throws what the image throws; another step goes on from there.
   */
  step(budgetBytes: number): number {
    if (this.#plan === undefined || this.#done) return 0;
    let readBytes = 0;
    for (let parts = 0; parts < PARTS_PER_STEP && readBytes < budgetBytes; parts++) {
      if (this.#offset === this.#image.sizeBytes) {
        this.#finish();
        break;
      }
      const read = this.#plan.kind === "copy" ? this.#copyPart() : this.#comparePart();
      if (read === undefined) break;
      readBytes += read;
    }
    return readBytes;
  }

  #copyPart(): number {
    const left = this.#image.sizeBytes - this.#offset;
    const zeros = this.#image.zeroBytes(this.#offset, left);
    if (zeros > 0) {
      this.#send(zeros, undefined);
      return 0;
    }
    const chunk = this.#read();
    this.#send(chunk.length, chunk);
    return chunk.length;
  }

  /** @returns Bytes read, or `undefined` where the secondary has not told enough. */
  #comparePart(): number | undefined {
    let run = this.#runs[0];
    const size = this.#image.sizeBytes;
    while (run !== undefined && endOfRun(run, RESYNC_CHUNK_BYTES, size) <= this.#offset) {
      this.#runs.shift();
      run = this.#runs[0];
    }
    if (run === undefined) return undefined;
    const firstChunk = run.offset + run.zeroBytes;
    if (this.#offset < firstChunk) {
      // Zeros there.
      const zeros = this.#image.zeroBytes(this.#offset, firstChunk - this.#offset);
      if (zeros > 0) {
        this.#same(zeros);
        return 0;
      }
      const chunk = this.#read(firstChunk);
      if (isZero(chunk)) this.#same(chunk.length);
      else this.#send(chunk.length, chunk);
      return chunk.length;
    }
    const lengthBytes = Math.min(RESYNC_CHUNK_BYTES, size - this.#offset);
    if (this.#image.zeroBytes(this.#offset, lengthBytes) === lengthBytes) {
      // The secondary tells zeros as such: here it has something else.
      this.#send(lengthBytes, undefined);
      return 0;
    }
    const chunk = this.#read();
    const at = (this.#offset - firstChunk) / RESYNC_CHUNK_BYTES * DIGEST_BYTES;
    const theirs = run.digests.subarray(at, at + DIGEST_BYTES);
    const { digest } = this.#plan as Extract<ResyncPlan, { kind: "compare" }>;
    if (Buffer.compare(digest(chunk), theirs) === 0) this.#same(chunk.length);
    else this.#send(chunk.length, isZero(chunk) ? undefined : chunk);
    return chunk.length;
  }

  /** Reads the chunk that the next byte to look at begins, as far as `end`. */
  #read(end = this.#image.sizeBytes): Uint8Array<ArrayBuffer> {
    const toBoundary = RESYNC_CHUNK_BYTES - this.#offset % RESYNC_CHUNK_BYTES;
    const chunk = this.#chunk.subarray(0, Math.min(toBoundary, end - this.#offset));
    this.#image.read(chunk, this.#offset);
    return chunk;
  }

  #same(lengthBytes: number): void {
    this.#equalBytes += lengthBytes;
    this.#advance(lengthBytes);
  }

  /** @param data Undefined for zeros. */
  #send(lengthBytes: number, data: Uint8Array | undefined): void {
    const tap = this.#tap.name;
    const offset = this.#offset;
    if (data === undefined) this.#tap.add({ kind: "zero", tap, offset, lengthBytes });
    else {
      this.#tap.add({ kind: "copy", tap, offset, data: data.slice() });
      this.#sentBytes += lengthBytes;
    }
    this.#advance(lengthBytes);
  }

  #advance(lengthBytes: number): void {
    this.#offset += lengthBytes;
    this.#tap.recordBelow(this.#offset);
  }

  #finish(): void {
    this.#done = true;
    this.#tap.recordBelow(Infinity);
    this.#tap.add({ kind: "copied", tap: this.#tap.name });
  }
}
