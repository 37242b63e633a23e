import { StateError } from "../../errors.ts";
import { addressOf, type ImageCall, type ImageResult } from "./image_calls.ts";
import { ImageRing, RING_SLOTS } from "./image_ring.ts";
import type { ImageWorkerStart } from "./image_worker.ts";
import { libc } from "../system/libc.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { ShortWait } from "./short_wait.ts";
import { EFD_CLOEXEC, EFD_NONBLOCK } from "../system/linux.ts";

/**
 * How many changing requests are compared with a range; if there are more, the range counts as
 * changed.
 */
const COMPARED_CHANGES = 64;
/** About the time that the page cache takes to answer, and a fast disk to flush. */
const SHORT_MS = 0.1;
/** How long {@link ImageQueue.close} waits for the thread, if it is idle or about to finish. */
const END_MS = 50;

/** A request's data and effect. */
interface QueuedCall {
  readonly op: number;
  readonly flags: number;
  readonly offset: number;
  readonly lengthBytes: number;
  /** Must stay in place, and unchanged, until the request is done. */
  readonly memory?: Uint8Array<ArrayBuffer> | Float64Array<ArrayBuffer>;
  /** Whether the request changes the image's content. */
  readonly changes: boolean;
  /** Called on the reactor, in the order of the requests. */
  readonly done: (result: ImageResult) => void;
}

/**
 * The requests to one image: done one after the other, in the order in which they came, by a thread
 * of the image's own. The storage may take a minute for a request; the caller's thread never waits.
 *
 * ```text
 * submit() ──► ring ──► image_worker.ts: system call ──► ring, eventfd ──► reactor: done()
 *    └── more than the ring takes: a list, with no bound of its own
 * ```
 *
 * A queue of one thread keeps the order that a call on the caller's own thread would have: reads
 * see the writes before them, overlapping writes are made in order, a flush covers all writes
 * before it. Measured on two cores: 14 µs from a request to its answer if the reactor sleeps, and
 * 1.6 µs each for 16 requests at a time, against 1 µs for a write by the caller itself. If a client
 * waits for each of its requests, and the processors go idle in between, a sleep at either end
 * costs more than the request: a write and a flush of 4 KiB took 390 µs here and 280 with nbdkit.
 * So both ends wait shortly before they sleep ({@link ShortWait}): 285 µs.
 */
export class ImageQueue {
  readonly #ring = new ImageRing();
  readonly #reactor: Reactor;
  readonly #fd: number;
  readonly #sizeBytes: number;
  #worker: Worker | undefined;
  #watch: Watch | undefined;
  #signalFd = -1;
  /** The requests that are not answered, oldest first; the first ones are in the ring. */
  #calls: QueuedCall[] = [];
  #head = 0;
  #asked = 0;
  #answered = 0;
  #changes = 0;
  #bytes = 0;
  /** When a request was answered last; or, if later, when the oldest waiting request came. */
  #progressAt = 0;
  /** Decides whether to wait on the spot for a request that comes alone; one for each operation. */
  readonly #waits = new Map<number, ShortWait>();
  /** When the request came for which the caller waits on the spot. */
  #aloneAt = 0;
  #closed = false;
  /** True while answers are delivered: a `done` may submit requests, which are handled after it. */
  #isTaking = false;
  #waitedTurn = -1;
  #waitMs = 0;

  /** @param fd The image's descriptor, closed by this object. */
  constructor(reactor: Reactor, fd: number, sizeBytes: number) {
    this.#reactor = reactor;
    this.#fd = fd;
    this.#sizeBytes = sizeBytes;
  }

  /** How many requests are under way. */
  get length(): number {
    return this.#calls.length - this.#head;
  }
  /** For how long none of them has been answered, in milliseconds; 0 if there is none. */
  get stalledMs(): number {
    return this.length === 0 ? 0 : performance.now() - this.#progressAt;
  }
  /** Bytes of memory that the requests keep. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * From now on the caller may wait on the spot for a request that comes alone: `done` is then
   * called before `submit` returns. This pays if the client waits for each answer, as a guest does.
   *
   * @param limitMs The longest wait; 0: never wait.
   */
  waitShortly(limitMs = SHORT_MS): void {
    this.#waitMs = limitMs;
    this.#waits.clear();
  }

  /** Whether a request under way changes this range, or may change it. */
  changesIn(offset: number, lengthBytes: number): boolean {
    if (this.#changes === 0) return false;
    if (this.#changes > COMPARED_CHANGES) return true;
    for (let i = this.#head; i < this.#calls.length; i++) {
      const { changes, offset: from, lengthBytes: length } = this.#calls[i];
      if (changes && from < offset + lengthBytes && offset < from + length) return true;
    }
    return false;
  }

  submit(call: QueuedCall): void {
    if (this.#closed) throw new StateError("a request for an image that is closed");
    if (this.#worker === undefined) this.#start();
    if (this.length === 0) this.#progressAt = performance.now();
    this.#calls.push(call);
    if (call.changes) this.#changes++;
    this.#bytes += call.memory?.byteLength ?? 0;
    this.#fill();
    this.#waitShortly(call.op);
  }

  /** Cancels the changes that were asked for and have not begun: each fails as given up. */
  giveUpChanges(): void {
    this.#ring.giveUpBefore((this.#answered + this.length) | 0);
  }

  /** Blocks the caller's thread until all requests are done: for a short time, at the end. */
  finish(untilMs: number): void {
    while (this.length > 0 && performance.now() < untilMs) {
      this.#take();
      if (this.length > 0) this.#ring.pause();
    }
  }

  /**
   * Ends the thread, which closes the image. Waiting requests are dropped, and their `done` is not
   * called. A system call in which the thread waits goes on, and the thread ends after it.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#calls = [];
    this.#head = 0;
    this.#watch?.stop();
    const worker = this.#worker;
    if (worker === undefined) {
      libc().close(this.#fd);
      return;
    }
    this.#ring.end();
    // A thread that hangs in a system call cannot be ended before the call returns; the process can
    // end.
    if (this.#ring.waitForEnd(END_MS)) worker.terminate();
  }

  /** Started with the first request, so that a disk that nobody uses costs no thread. */
  #start(): void {
    this.#signalFd = libc().eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    const worker = new Worker(new URL("./image_worker.ts", import.meta.url), { type: "module" });
    worker.onerror = (event) => {
      event.preventDefault();
      this.#reactor.fail(new StateError(`an image's thread has ended: ${event.message}`));
    };
    const start: ImageWorkerStart = {
      memory: this.#ring.memory,
      fd: this.#fd,
      signalFd: this.#signalFd,
      sizeBytes: this.#sizeBytes,
    };
    worker.postMessage(start);
    this.#worker = worker;
    this.#watch = this.#reactor.watch(this.#signalFd, { readable: () => this.#drain() });
    this.#watch.want(true, false);
  }

  /**
   * Waits on the spot for a request that comes alone. Several requests at a time need no such wait:
   * the thread has work, and so has the caller. So only the first request of a turn is waited for;
   * the following ones are queued together, and a turn is longer by one wait at the most.
   */
  #waitShortly(op: number): void {
    if (this.#waitMs === 0 || this.length > 1 || this.#isTaking) return;
    if (this.#waitedTurn === this.#reactor.turns) return;
    this.#waitedTurn = this.#reactor.turns;
    this.#aloneAt = performance.now();
    if (this.#waitOf(op).until(() => this.#answered !== this.#ring.answered)) this.#take();
  }

  #waitOf(op: number): ShortWait {
    let wait = this.#waits.get(op);
    if (wait === undefined) this.#waits.set(op, wait = new ShortWait(this.#waitMs));
    return wait;
  }

  /** Moves requests to the ring as long as it has room. */
  #fill(): void {
    const before = this.#asked;
    for (;;) {
      const inRing = (this.#asked - this.#answered) | 0;
      const next = this.#calls[this.#head + inRing];
      if (next === undefined || inRing >= RING_SLOTS) break;
      this.#ring.put(this.#asked, callOf(next));
      this.#asked = (this.#asked + 1) | 0;
    }
    if (this.#asked !== before) this.#ring.ring(this.#asked);
  }

  #drain(): void {
    libc().read(this.#signalFd, SIGNAL, 8n);
    this.#ring.heard();
    if (this.length === 1 && this.#answered !== this.#ring.answered) {
      this.#waitOf(this.#calls[this.#head].op).tell(performance.now() - this.#aloneAt);
    }
    this.#take();
  }

  /** Takes the answers. */
  #take(): void {
    this.#isTaking = true;
    try {
      this.#takeAll();
    } finally {
      this.#isTaking = false;
    }
  }

  #takeAll(): void {
    let failure: { readonly error: unknown } | undefined;
    if (this.#answered !== this.#ring.answered) this.#progressAt = performance.now();
    while (!this.#closed && this.#answered !== this.#ring.answered) {
      const { memory, changes, done } = this.#calls[this.#head];
      const result = this.#ring.result(this.#answered);
      this.#calls[this.#head++] = GONE;
      this.#answered = (this.#answered + 1) | 0;
      if (changes) this.#changes--;
      this.#bytes -= memory?.byteLength ?? 0;
      if (this.#head === this.#calls.length || this.#head > 1024) {
        this.#calls = this.#calls.slice(this.#head);
        this.#head = 0;
      }
      this.#fill();
      try {
        done(result);
      } catch (error) {
        // The other answers are delivered all the same: there is no second signal for them.
        failure ??= { error };
      }
    }
    if (failure !== undefined) throw failure.error;
  }
}

const SIGNAL = new Uint8Array(8);
const GONE: QueuedCall = {
  op: 0,
  flags: 0,
  offset: 0,
  lengthBytes: 0,
  changes: false,
  done: () => {},
};

function callOf({ op, flags, offset, lengthBytes, memory }: QueuedCall): ImageCall {
  const room = memory instanceof Float64Array ? memory.length / 2 : 0;
  const address = memory === undefined || memory.length === 0 ? 0 : addressOf(memory);
  return { op, flags, offset, lengthBytes, address, room };
}
