/**
 * The memory that an image's thread (the worker) shares with the thread that asks (the asker):
 * requests and their results.
 */
import type { ImageCall, ImageResult } from "./image_calls.ts";

/** How many requests the ring holds. */
export const RING_SLOTS = 128;

const FIELDS = 9;
const HEADER_BYTES = 64;
/** The words of the header. */
const ASKED = 0;
const ANSWERED = 1;
const SIGNALLED = 2;
const ENDING = 3;
const ENDED = 4;
const GIVEN_UP = 5;

const OP = 0;
const FLAGS = 1;
const OFFSET = 2;
const LENGTH = 3;
const ADDRESS = 4;
const ROOM = 5;
const CODE = 6;
const AT = 7;
const IN_FLUSH = 8;

/**
 * The ring, used by both threads.
 *
 * ```text
 * asker: put() … ring()        worker: take() … answer()
 *        drain: answered, result() ◄── signal once until the asker has heard it
 * ```
 *
 * Slots are plain memory; the counters are atomic, and a counter is advanced only when its slot is
 * complete: a thread that sees the counter sees the slot's content.
 */
export class ImageRing {
  readonly #words: Int32Array;
  readonly #slots: Float64Array;

  constructor(
    readonly memory = new SharedArrayBuffer(HEADER_BYTES + RING_SLOTS * FIELDS * 8),
  ) {
    this.#words = new Int32Array(memory, 0, HEADER_BYTES / 4);
    this.#slots = new Float64Array(memory, HEADER_BYTES);
  }

  // For the asker:

  /** How many requests were answered so far, modulo 2^32. */
  get answered(): number {
    return Atomics.load(this.#words, ANSWERED);
  }

  /**
   * Puts request number `index`, for which there must be room. The worker does not see it before
   * {@link ring}.
   */
  put(index: number, call: ImageCall): void {
    const at = slotOf(index);
    this.#slots[at + OP] = call.op;
    this.#slots[at + FLAGS] = call.flags;
    this.#slots[at + OFFSET] = call.offset;
    this.#slots[at + LENGTH] = call.lengthBytes;
    this.#slots[at + ADDRESS] = call.address;
    this.#slots[at + ROOM] = call.room;
  }

  /** Publishes the number of requests put so far, and wakes the worker. */
  ring(asked: number): void {
    Atomics.store(this.#words, ASKED, asked);
    Atomics.notify(this.#words, ASKED);
  }

  result(index: number): ImageResult {
    const at = slotOf(index);
    return {
      code: this.#slots[at + CODE],
      at: this.#slots[at + AT],
      inFlush: this.#slots[at + IN_FLUSH] !== 0,
    };
  }

  /** Has answers signalled again from now on. To be called before {@link answered}. */
  heard(): void {
    Atomics.store(this.#words, SIGNALLED, 0);
  }

  /**
   * Ends the worker: waiting requests are given up, and work in parts stops after the current part.
   */
  end(): void {
    Atomics.store(this.#words, ENDING, 1);
    Atomics.notify(this.#words, ASKED);
  }

  /** Cancels the changes before this request that have not begun. */
  giveUpBefore(index: number): void {
    Atomics.store(this.#words, GIVEN_UP, index);
  }

  /** Whether the worker has closed the image. */
  get isEnded(): boolean {
    return Atomics.load(this.#words, ENDED) !== 0;
  }

  // For the worker:

  get isEnding(): boolean {
    return Atomics.load(this.#words, ENDING) !== 0;
  }

  /** Sleeps until more than `taken` requests have been put, or the worker is to end. */
  sleep(taken: number): void {
    // A short sleep, so that a missed wake-up does no harm.
    Atomics.wait(this.#words, ASKED, taken, 1000);
  }

  get asked(): number {
    return Atomics.load(this.#words, ASKED);
  }

  isGivenUp(index: number): boolean {
    return ((Atomics.load(this.#words, GIVEN_UP) - index) | 0) > 0;
  }

  take(index: number): ImageCall {
    const at = slotOf(index);
    return {
      op: this.#slots[at + OP],
      flags: this.#slots[at + FLAGS],
      offset: this.#slots[at + OFFSET],
      lengthBytes: this.#slots[at + LENGTH],
      address: this.#slots[at + ADDRESS],
      room: this.#slots[at + ROOM],
    };
  }

  /** @returns Whether to signal the asker. */
  answer(index: number, result: ImageResult): boolean {
    const at = slotOf(index);
    this.#slots[at + CODE] = result.code;
    this.#slots[at + AT] = result.at;
    this.#slots[at + IN_FLUSH] = result.inFlush ? 1 : 0;
    Atomics.store(this.#words, ANSWERED, (index + 1) | 0);
    return Atomics.exchange(this.#words, SIGNALLED, 1) === 0;
  }

  ended(): void {
    Atomics.store(this.#words, ENDED, 1);
    Atomics.notify(this.#words, ENDED);
  }

  /** Waits for a moment, in which more answers may come. */
  pause(): void {
    Atomics.wait(this.#words, ENDED, 0, 1);
  }

  /** Waits for the worker's end, up to a time. @returns Whether the worker has ended. */
  waitForEnd(ms: number): boolean {
    const until = performance.now() + ms;
    while (!this.isEnded && performance.now() < until) {
      // The worker may have checked for the end just before, and have gone to sleep just after.
      Atomics.notify(this.#words, ASKED);
      Atomics.wait(this.#words, ENDED, 0, 1);
    }
    return this.isEnded;
  }
}

function slotOf(index: number): number {
  return ((index % RING_SLOTS) + RING_SLOTS) % RING_SLOTS * FIELDS;
}
