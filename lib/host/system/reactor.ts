import { delay } from "./delay.ts";
import { libc } from "./libc.ts";
import { O_CLOEXEC, O_NONBLOCK, POLLIN, POLLOUT } from "./linux.ts";
import { never } from "./never.ts";

/** What a watched descriptor waits for. Handlers run on the loop and must not block. */
export interface WatchHandlers {
  /** There are bytes or a connection to be taken, or the other side has closed. */
  readonly readable?: () => void;
  readonly writable?: () => void;
}

/** One descriptor's place in the loop. */
export interface Watch {
  /**
   * Sets what to wait for from now on. A hang-up is reported only while the descriptor waits for
   * something.
   */
  want(readable: boolean, writable: boolean): void;
  /** Takes the descriptor out of the loop. It stays open. */
  stop(): void;
}

const POLLFD_BYTES = 8;

/**
 * How long after the last traffic the loop sleeps in poll(2) itself; later it sleeps in the
 * runtime's thread pool.
 */
const HOT_MS = 20;
/** The longest sleep in poll(2): signals and the runtime's other tasks wait so long at the most. */
const HOT_SLEEP_MS = 2;
/** How long handlers may run before the runtime's other tasks get a turn. */
const TURN_MS = 10;
/** The longest sleep. */
const COLD_SLEEP_MS = 1000;

interface Entry {
  readonly fd: number;
  readonly handlers: WatchHandlers;
  events: number;
  stopped: boolean;
}

/**
 * Waits for descriptors and timers on one thread.
 *
 * While there is traffic the loop sleeps in poll(2) itself, since waking up through the runtime
 * costs some 50 µs more a time (measured), and a checkpoint takes several wake-ups. After 20 ms
 * of quiet it sleeps in the runtime's thread pool, and every 10 ms it lets the runtime run, which
 * costs a checkpoint's wake-up each time (measured): signals are seen within some 12 ms. While a
 * task of the runtime is waited for ({@link Reactor.during}) it always sleeps there: twenty QMP
 * commands between a busy guest's frames took five seconds otherwise (measured).
 */
export class Reactor {
  #entries: Entry[] = [];
  #pollfds = new Uint8Array(new ArrayBuffer(POLLFD_BYTES * 4));
  #view = new DataView(this.#pollfds.buffer);
  readonly #timers = new Set<{ at: number; callback: () => void }>();
  readonly #wake = new Int32Array(2);
  #error: unknown;
  #closed = false;
  /** Tasks of the runtime that are waited for. */
  #tasks = 0;
  #turns = 0;
  /** Where the next turn begins: behind a handler that has failed, which is not to starve the others. */
  #first = 0;
  /** A handler has failed before this turn's timers had their time. */
  #owesTimers = false;
  /**
   * Sleeps in the thread pool that are under way; more than one if a task runs the loop inside
   * another run.
   */
  #sleepers = 0;
  /** When the last of these sleeps ends; -Infinity if there is none. */
  #sleepsUntil = -Infinity;
  /**
   * When the runtime last had its turn. Kept over runs: many short runs must not put it off for
   * ever.
   */
  #turnAt = performance.now();

  constructor() {
    // An eventfd whose only use is to end a sleep.
    libc().pipe2(new Uint8Array(this.#wake.buffer), O_NONBLOCK | O_CLOEXEC);
    const drain = new Uint8Array(64);
    this.watch(this.#wake[0], { readable: () => libc().read(this.#wake[0], drain, 64n) })
      .want(true, false);
  }

  watch(fd: number, handlers: WatchHandlers): Watch {
    const entry: Entry = { fd, handlers, events: 0, stopped: false };
    this.#entries = [...this.#entries, entry];
    return {
      want: (readable, writable) => {
        const before = entry.events;
        entry.events = (readable ? POLLIN : 0) | (writable ? POLLOUT : 0);
        if ((entry.events & ~before) !== 0) this.#wakeFor(-Infinity);
      },
      stop: () => {
        entry.stopped = true;
        this.#entries = this.#entries.filter((other) => other !== entry);
      },
    };
  }

  /**
   * How often descriptors have been polled so far: calls that see the same number are in the same
   * turn of the loop.
   */
  get turns(): number {
    return this.#turns;
  }

  /** Calls back once. @returns A function that cancels the call. */
  after(delayMs: number, callback: () => void): () => void {
    const timer = { at: performance.now() + delayMs, callback };
    this.#timers.add(timer);
    this.#wakeFor(timer.at);
    return () => this.#timers.delete(timer);
  }

  /** Calls back periodically until cancelled. */
  every(periodMs: number, callback: () => void): () => void {
    let cancel: () => void;
    const round = () => {
      cancel = this.after(periodMs, round);
      callback();
    };
    cancel = this.after(periodMs, round);
    return () => cancel();
  }

  /**
   * Ends a sleep early and lets the runtime run, because something outside the loop has changed or
   * is about to.
   */
  wake(): void {
    // Code that outlives the loop must not write to a descriptor number that is in use for
    // something else by now.
    if (this.#closed) return;
    this.#turnAt = -Infinity;
    libc().write(this.#wake[1], new Uint8Array(1), 1n);
  }

  /** Makes {@link run} throw; for tasks outside the loop. */
  fail(error: unknown): void {
    this.#error ??= error ?? new Error("failed");
    this.wake();
  }

  /** Forgets an error that {@link fail} was given and no run has thrown: its cause is over. */
  forgetFailure(): void {
    this.#error = undefined;
  }

  /**
   * Runs until `done()`.
   *
   * @throws whatever a handler throws, {@link fail} was given, or the signal's reason.
   */
  async run(done: () => boolean, signal: AbortSignal): Promise<void> {
    const onAbort = () => this.wake();
    signal.addEventListener("abort", onAbort);
    let busyAt = performance.now();
    try {
      while (!done()) {
        signal.throwIfAborted();
        if (this.#error !== undefined) {
          const error = this.#error;
          this.#error = undefined;
          throw error;
        }
        if (this.#owesTimers) {
          this.#owesTimers = false;
          this.#fireTimers();
        }
        const now = performance.now();
        const quiet = this.#tasks > 0 || now - busyAt > HOT_MS;
        const sleepMs = Math.max(0, Math.ceil(this.#nextTimer() - now));
        // Entries may come and go while poll(2) waits: its answers are for these entries.
        const entries = this.#entries;
        const count = this.#fill(entries);
        let ready: number;
        if (quiet) {
          const timeout = Math.min(sleepMs, COLD_SLEEP_MS);
          this.#sleepers++;
          this.#sleepsUntil = Math.max(this.#sleepsUntil, now + timeout);
          ready = await libc().pollLater(this.#pollfds, BigInt(count), timeout);
          if (--this.#sleepers === 0) this.#sleepsUntil = -Infinity;
          this.#turnAt = performance.now();
        } else {
          const timeout = Math.min(sleepMs, HOT_SLEEP_MS);
          ready = libc().poll(this.#pollfds, BigInt(count), timeout);
        }
        this.#turns++;
        if (ready > 0) {
          this.#dispatch(entries, count);
          busyAt = performance.now();
        }
        this.#fireTimers();
        if (performance.now() - this.#turnAt > TURN_MS) {
          await new Promise<void>((resolve) => setImmediate(resolve));
          this.#turnAt = performance.now();
        }
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /**
   * Runs until a task outside the loop has settled.
   *
   * @throws what the task rejects with; or what {@link run} throws, and the task then goes on by
   *   itself.
   */
  async during<T>(task: Promise<T>, signal: AbortSignal): Promise<T> {
    return await this.#watching(task, (settled) => this.run(settled, signal));
  }

  /**
   * Runs until `done()`, whatever fails meanwhile: for what has to come to its end.
   *
   * @param heed Told of each failure; what it throws ends the run.
   */
  async runOn(done: () => boolean, heed: (failure: unknown) => void): Promise<void> {
    while (!done()) {
      try {
        await this.run(done, never);
      } catch (failure) {
        heed(failure);
        // A handler that fails in each turn is not to keep the runtime from its own.
        await delay(1);
      }
    }
  }

  /**
   * Runs until a task outside the loop has settled, as {@link runOn} does.
   *
   * @throws what the task rejects with, or what `heed` throws; the task then goes on alone.
   */
  async seeThrough<T>(task: Promise<T>, heed: (failure: unknown) => void): Promise<T> {
    return await this.#watching(task, (settled) => this.runOn(settled, heed));
  }

  async #watching<T>(
    task: Promise<T>,
    run: (settled: () => boolean) => Promise<void>,
  ): Promise<T> {
    let settled = false;
    const watched = task.finally(() => {
      settled = true;
      this.wake();
    });
    watched.catch(() => {});
    const done = this.awaitRuntime();
    try {
      await run(() => settled);
    } finally {
      done();
    }
    return await watched;
  }

  /**
   * Announces that a task waits for something that the runtime reads, such as QMP: until it has
   * come, the loop sleeps in the thread pool, also while there is traffic.
   *
   * @returns A function to be called once, when it has come.
   */
  awaitRuntime(): () => void {
    this.#tasks++;
    this.wake();
    return () => this.#tasks--;
  }

  /** Serves what is ready, and lets the runtime have its turn, in the middle of a long task. */
  async turn(signal: AbortSignal): Promise<void> {
    await this.sleep(0, signal);
    if (performance.now() - this.#turnAt > TURN_MS) {
      await new Promise<void>((resolve) => setImmediate(resolve));
      this.#turnAt = performance.now();
    }
    signal.throwIfAborted();
  }

  /** Runs the loop for a time. */
  async sleep(durationMs: number, signal: AbortSignal): Promise<void> {
    let over = false;
    const cancel = this.after(durationMs, () => over = true);
    try {
      await this.run(() => over, signal);
    } finally {
      cancel();
    }
  }

  /** Closes the loop's own descriptors. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    libc().close(this.#wake[0]);
    libc().close(this.#wake[1]);
  }

  /**
   * Has a sleep end by this time, for a task of the runtime that has asked for something that is
   * due then.
   */
  #wakeFor(dueAt: number): void {
    if (dueAt < this.#sleepsUntil) this.wake();
  }

  #fill(entries: readonly Entry[]): number {
    const count = entries.length;
    if (this.#pollfds.length < count * POLLFD_BYTES) {
      this.#pollfds = new Uint8Array(new ArrayBuffer(2 * count * POLLFD_BYTES));
      this.#view = new DataView(this.#pollfds.buffer);
    }
    for (let i = 0; i < count; i++) {
      const { fd, events } = entries[i];
      // poll(2) ignores negative descriptors. Otherwise a hang-up that no handler waits for would
      // make the loop spin.
      this.#view.setInt32(i * POLLFD_BYTES, events === 0 ? -1 : fd, true);
      this.#view.setInt16(i * POLLFD_BYTES + 4, events, true);
      this.#view.setInt16(i * POLLFD_BYTES + 6, 0, true);
    }
    return count;
  }

  #dispatch(entries: readonly Entry[], count: number): void {
    const first = this.#first;
    this.#owesTimers = true;
    for (let turn = 0; turn < count; turn++) {
      const i = (first + turn) % count;
      const revents = this.#view.getInt16(i * POLLFD_BYTES + 6, true);
      if (revents === 0) continue;
      const entry = entries[i];
      this.#first = i + 1;
      if (entry.stopped) continue;
      const failed = (revents & ~(POLLIN | POLLOUT)) !== 0;
      if ((entry.events & POLLIN) !== 0 && ((revents & POLLIN) !== 0 || failed)) {
        entry.handlers.readable?.();
      }
      if (entry.stopped) continue;
      if ((entry.events & POLLOUT) !== 0 && ((revents & POLLOUT) !== 0 || failed)) {
        entry.handlers.writable?.();
      }
    }
    this.#first = 0;
    this.#owesTimers = false;
  }

  #nextTimer(): number {
    let next = Infinity;
    for (const { at } of this.#timers) if (at < next) next = at;
    return next;
  }

  #fireTimers(): void {
    const now = performance.now();
    for (const timer of this.#timers) {
      if (timer.at > now || !this.#timers.delete(timer)) continue;
      timer.callback();
    }
  }
}
