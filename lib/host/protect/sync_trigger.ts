import type { Reactor } from "../system/reactor.ts";

/** How long a checkpoint may go on before the trigger stops waiting for its end. */
const CHECKPOINT_LIMIT_MS = 1000;

/**
 * Turns held output into requests for a synchronization: one at a time, not too often, and never
 * while QEMU is in a checkpoint. A request during a checkpoint is lost now and then, and has been
 * seen to hang QEMU 11.1 (measured with QEMU's own COLO pair).
 *
 * ```text
 * idle ──request()──► (least interval) ──► asked ──begun()──► busy ──ended()──► idle
 *                                                        request(): remembered until ended()
 * ```
 */
export class SyncTrigger {
  readonly #reactor: Reactor;
  readonly #ask: () => void;
  readonly #minIntervalMs: number;
  #wanted = false;
  #busy = false;
  /** A checkpoint has been asked for and has not begun. */
  #asked = false;
  #askedAt = -Infinity;
  #begunAt = -Infinity;
  #cancelAsk: (() => void) | undefined;
  #cancelLimit: () => void = () => {};
  /** Whether a request waits for the VM to run again, which QMP reports. */
  #doneAwaiting: (() => void) | undefined;

  /** @param ask Asks QEMU for a checkpoint; must not throw. */
  constructor(reactor: Reactor, minIntervalMs: number, ask: () => void) {
    this.#reactor = reactor;
    this.#minIntervalMs = minIntervalMs;
    this.#ask = ask;
  }

  /** True while output waits for a synchronization that has not begun. */
  get pending(): boolean {
    return this.#wanted || this.#cancelAsk !== undefined;
  }

  /** When a synchronization last began, or was asked for. */
  get begunAt(): number {
    return this.#begunAt;
  }

  /** Output is held until a commit. */
  request(): void {
    this.#wanted = true;
    // From now on the loop sleeps in the runtime, which reads QMP: otherwise the runtime gets a
    // turn only every 10 ms while there is traffic, and round trips on one connection took 25 ms
    // each (measured by kemari bench net).
    if (this.#busy && !this.#asked) this.#doneAwaiting ??= this.#reactor.awaitRuntime();
    this.#schedule();
  }

  /** A checkpoint begins. Output until the VM stands still belongs to it. */
  begun(): void {
    this.#asked = false;
    this.#begunAt = performance.now();
    this.#busy = true;
    this.#cancelAsk?.();
    this.#cancelAsk = undefined;
    this.#cancelLimit();
    this.#cancelLimit = this.#reactor.after(CHECKPOINT_LIMIT_MS, () => this.ended());
  }

  /**
   * The VM stands still: what was held belongs to this checkpoint, what comes now to the next one.
   */
  closed(): void {
    this.#wanted = false;
    this.#stopAwaiting();
  }

  /** The VM runs again. */
  ended(): void {
    this.#cancelLimit();
    this.#stopAwaiting();
    this.#busy = false;
    this.#asked = false;
    if (this.#wanted) this.#schedule();
  }

  #schedule(): void {
    if (this.#busy || this.#cancelAsk !== undefined) return;
    const waitMs = this.#askedAt + this.#minIntervalMs - performance.now();
    if (waitMs <= 0) return this.#fire();
    this.#cancelAsk = this.#reactor.after(waitMs, () => {
      this.#cancelAsk = undefined;
      this.#fire();
    });
  }

  #fire(): void {
    this.#askedAt = performance.now();
    // Until the checkpoint has come, one request stands for all.
    this.begun();
    this.#asked = true;
    this.#ask();
  }

  #stopAwaiting(): void {
    this.#doneAwaiting?.();
    this.#doneAwaiting = undefined;
  }
}
