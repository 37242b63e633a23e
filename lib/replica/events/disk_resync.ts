import { Buffer } from "node:buffer";
import { WireError } from "../../errors.ts";
import { DIGEST_BYTES } from "../../txn/wire.ts";
import {
  decodeDigestRun,
  type DigestedDisk,
  type DiskDigestRun,
  encodeDiskQuery,
  endOfRun,
  isZero,
} from "./disk_digest.ts";
import type { PrimaryDiskTap } from "./primary_disk_tap.ts";
import type { PageDigest } from "../pages/page_digest.ts";
import type { ResyncProgress } from "../../control/tap_status.ts";

/** The bytes of a chunk, which is compared and sent as a whole. */
export const RESYNC_CHUNK_BYTES = 256 * 1024;
/** How far queries to the secondary are ahead of the comparison. */
const AHEAD_BYTES = 32 * 2 ** 20;
/** The range of a query, unless it is all zeros here: those cost nothing to compare. */
const QUERY_BYTES = 16 * 2 ** 20;
const MAX_QUERY_BYTES = 64 * 2 ** 30;
/** The most parts that are compared in a step, whatever they cost. */
const PARTS_PER_STEP = 256;

/** What to do with a secondary's copy at the beginning of a session. */
export type ResyncPlan =
  /** The copy is known to be equal. */
  | { readonly kind: "none" }
  /** Nothing is known of the copy, and the secondary cannot be asked: everything is sent. */
  | { readonly kind: "copy" }
  /** The secondary is asked for digests under this seed, and chunks that differ are sent. */
  | {
    readonly kind: "compare";
    readonly seedLow: number;
    readonly seedHigh: number;
    readonly digest: PageDigest;
  };

/**
 * Called with the number of bytes that a part has read; `undefined` if nothing more can be done
 * now.
 */
type PartDone = (readBytes: number | undefined, error?: Error) => void;

/**
 * Brings a secondary's copy of a replicated disk in step, from the front to the back, while the VM
 * runs and writes.
 *
 * The secondary sends digests of its chunks, and the chunks that differ are sent to it. Whatever
 * the copy is when a session begins (half copied, once complete and out of date, the old primary's
 * own disk), only the differences are sent. A chunk is compared and recorded in the moment in which
 * it has been read, and the tap records the guest's writes in front of that place and not behind
 * it. The image carries out in order what touches the same place: a write before the read is in the
 * data read, and a write after the read is recorded. So each byte is either equal at the secondary
 * at that moment, or it is sent; and every later write travels, in order.
 *
 * ```text
 * waiting ──begin()──► asking: takeQuery(), receive(), step() … ──► done, "copied" is recorded
 * ```
 */
export class DiskResync {
  readonly #tap: PrimaryDiskTap;
  readonly #image: DigestedDisk;
  #plan: ResyncPlan | undefined;
  #offset = 0;
  #equalBytes = 0;
  #sentBytes = 0;
  #done = false;
  /** The queries whose answers are not complete, oldest first. */
  #asked: { readonly end: number }[] = [];
  #askedTo = 0;
  #answeredTo = 0;
  #runs: DiskDigestRun[] = [];
  #chunk = new Uint8Array(RESYNC_CHUNK_BYTES);
  #isAsking = false;
  #isStepping = false;

  constructor(tap: PrimaryDiskTap, image: DigestedDisk) {
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
  /** Whether it is known what to do with the copy. */
  get begun(): boolean {
    return this.#plan !== undefined;
  }

  /**
   * A session begins with another secondary, or the same one that comes back: nothing is known of
   * its copy.
   */
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
    this.#done = this.#isAsking = this.#isStepping = false;
    // A read that is under way belongs to the session before.
    this.#chunk = new Uint8Array(RESYNC_CHUNK_BYTES);
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
   * Makes the next query, as a DISK_QUERY payload, if it is time for one and none is being made.
   * Its answer is to be given to {@link receive}, after those of the queries before.
   */
  takeQuery(told: (query: Uint8Array) => void): void {
    const plan = this.#plan;
    const size = this.#image.sizeBytes;
    if (plan?.kind !== "compare" || this.#askedTo === size || this.#isAsking) return;
    if (this.#askedTo - this.#offset >= AHEAD_BYTES) return;
    const left = size - this.#askedTo;
    this.#isAsking = true;
    const most = Math.min(left, MAX_QUERY_BYTES);
    this.#image.zeroBytes(this.#askedTo, most, (zeros, error) => {
      if (this.#plan !== plan) return;
      this.#isAsking = false;
      if (error !== undefined) throw error;
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
      told(query);
    });
  }

  /**
   * Takes the next part of the answer to the oldest query.
   *
   * @throws {WireError} if it does not answer the query.
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
        "a DISK_DIGEST without content",
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
   * Reads, compares and records this many bytes, or a little more; if the image has to be waited
   * for, later. During a step another call does nothing.
   *
   * @param stepped Called at the end of the step, with the number of bytes read; before this
   *   returns if all was done at once.
   * @throws the image's error, from here or from where it is noticed.
   */
  step(budgetBytes: number, stepped: (readBytes: number) => void = () => {}): void {
    const plan = this.#plan;
    if (plan === undefined || this.#done || this.#isStepping) return;
    this.#isStepping = true;
    let readBytes = 0;
    let parts = 0;
    let isAtOnce = false;
    const isOver = () => parts >= PARTS_PER_STEP || readBytes >= budgetBytes;
    const end = () => {
      this.#isStepping = false;
      stepped(readBytes);
    };
    const next = () => {
      // Parts that are done at once follow each other in this loop; others go on in their callback.
      do {
        if (isOver()) return end();
        if (this.#offset === this.#image.sizeBytes) {
          this.#finish();
          return end();
        }
        parts++;
        isAtOnce = false;
        let isHere = true;
        const part = plan.kind === "copy" ? this.#copyPart : this.#comparePart;
        part.call(this, (read, error) => {
          if (this.#plan !== plan) return;
          if (error !== undefined) this.#isStepping = false;
          if (error !== undefined) throw error;
          if (read === undefined) return end();
          readBytes += read;
          if (isHere) isAtOnce = true;
          else next();
        });
        isHere = false;
      } while (isAtOnce);
    };
    next();
  }

  #copyPart(done: PartDone): void {
    const left = this.#image.sizeBytes - this.#offset;
    this.#image.zeroBytes(this.#offset, left, (zeros, error) => {
      if (error !== undefined) return done(0, error);
      if (zeros > 0) {
        this.#send(zeros, undefined);
        return done(0);
      }
      this.#read(done, (chunk) => this.#send(chunk.length, chunk));
    });
  }

  /**
   * Calls `done` with the bytes read, or with `undefined` if the secondary has not sent enough
   * digests.
   */
  #comparePart(done: PartDone): void {
    let run = this.#runs[0];
    const size = this.#image.sizeBytes;
    while (run !== undefined && endOfRun(run, RESYNC_CHUNK_BYTES, size) <= this.#offset) {
      this.#runs.shift();
      run = this.#runs[0];
    }
    if (run === undefined) return done(undefined);
    const firstChunk = run.offset + run.zeroBytes;
    if (this.#offset < firstChunk) {
      // The secondary has zeros there.
      this.#image.zeroBytes(this.#offset, firstChunk - this.#offset, (zeros, error) => {
        if (error !== undefined) return done(0, error);
        if (zeros > 0) {
          this.#same(zeros);
          return done(0);
        }
        this.#read(done, (chunk) => {
          if (isZero(chunk)) this.#same(chunk.length);
          else this.#send(chunk.length, chunk);
        }, firstChunk);
      });
      return;
    }
    const lengthBytes = Math.min(RESYNC_CHUNK_BYTES, size - this.#offset);
    this.#image.zeroBytes(this.#offset, lengthBytes, (zeros, error) => {
      if (error !== undefined) return done(0, error);
      if (zeros === lengthBytes) {
        // The secondary reports zeros as such: here it has something else.
        this.#send(lengthBytes, undefined);
        return done(0);
      }
      this.#read(done, (chunk) => {
        const at = (this.#offset - firstChunk) / RESYNC_CHUNK_BYTES * DIGEST_BYTES;
        const theirs = run.digests.subarray(at, at + DIGEST_BYTES);
        const { digest } = this.#plan as Extract<ResyncPlan, { kind: "compare" }>;
        if (Buffer.compare(digest(chunk), theirs) === 0) this.#same(chunk.length);
        else this.#send(chunk.length, isZero(chunk) ? undefined : chunk);
      });
    });
  }

  /** Reads the chunk that begins with the next byte, up to `end`, and compares it. */
  #read(
    done: PartDone,
    judge: (chunk: Uint8Array<ArrayBuffer>) => void,
    end = this.#image.sizeBytes,
  ): void {
    const toBoundary = RESYNC_CHUNK_BYTES - this.#offset % RESYNC_CHUNK_BYTES;
    const chunk = this.#chunk.subarray(0, Math.min(toBoundary, end - this.#offset));
    const plan = this.#plan;
    this.#image.read(chunk, this.#offset, (error) => {
      if (this.#plan !== plan) return;
      if (error !== undefined) return done(0, error);
      judge(chunk);
      done(chunk.length);
    });
  }

  #same(lengthBytes: number): void {
    this.#equalBytes += lengthBytes;
    this.#advance(lengthBytes);
  }

  /** @param data The chunk; undefined for zeros. */
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
