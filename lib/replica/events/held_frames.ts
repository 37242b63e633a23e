import { StateError } from "../../errors.ts";
import { LatencyWindow } from "../latency_window.ts";

/** How many frames and bytes may wait. */
export interface HeldLimits {
  readonly maxFrames: number;
  readonly maxBytes: number;
}

/** The frames of one closed epoch, in the order the guest sent them. */
export interface HeldEpoch {
  readonly epoch: number;
  /**
   * Never changed after they were held, so that they can be sent to the secondary without a copy.
   */
  readonly frames: readonly Uint8Array[];
  readonly bytes: number;
}

interface Entry {
  readonly frame: Uint8Array;
  readonly addedAtMs: number;
  readonly wasHeld: boolean;
}

/** A closed epoch: its frames end where the next one's begin. */
interface Boundary {
  readonly epoch: number;
  /** The number, counted from the first frame ever, of the first frame behind the epoch. */
  readonly end: number;
}

const COMPACT_AT = 4096;

/**
 * The queue of a guest's frames to the world: it holds frames until their epoch is released.
 *
 * All frames are in one queue in the order in which they came, whether held, released or passed
 * through, and leave only at its front, so none overtakes another. An epoch is a mark *between* two
 * frames, set when it is closed; releasing moves one index up to such a mark. So a frame that came
 * after an epoch was closed is behind that epoch's mark, and releasing the epoch cannot reach the
 * frame.
 *
 * ```text
 * number:  taken ≤ releasable ≤ (mark of the last closed epoch) ≤ total
 *            │ may leave │ closed, waits for its ACK │ open epoch │
 * ```
 *
 * No I/O and no clock: time is an argument, in milliseconds.
 */
export class HeldFrames {
  readonly #limits: HeldLimits;
  #entries: Entry[] = [];
  /** The number of the frame at the start of `#entries`. */
  #base = 0;
  #taken = 0;
  #releasable = 0;
  #total = 0;
  #bytes = 0;
  #heldBytes = 0;
  #isHolding = false;
  /** The epochs that are closed and not released, ascending. */
  #boundaries: Boundary[] = [];
  /** The epochs that are released, but may still have frames in the queue. */
  #leaving: Boundary[] = [];
  #lastClosed = -Infinity;
  #lastReleased = -Infinity;

  /** How long frames of released epochs were in the queue, in ms; without frames that passed. */
  readonly holdTime: LatencyWindow = new LatencyWindow();

  constructor(limits: HeldLimits) {
    this.#limits = limits;
  }

  /** Whether frames that come now wait for their epoch. */
  get isHolding(): boolean {
    return this.#isHolding;
  }
  /** How many frames may not leave yet. */
  get heldFrames(): number {
    return this.#total - this.#releasable;
  }
  get heldBytes(): number {
    return this.#heldBytes;
  }
  /** How many frames are in the queue: held ones, and those that may leave but have not. */
  get queuedFrames(): number {
    return this.#total - this.#taken;
  }
  get queuedBytes(): number {
    return this.#bytes;
  }
  /** How many frames the open epoch has. */
  get openFrames(): number {
    return this.#total - this.#closedEnd();
  }
  /** Whether no more frames should be read. Frames that were read already must still be added. */
  get isFull(): boolean {
    return this.queuedFrames >= this.#limits.maxFrames || this.#bytes >= this.#limits.maxBytes;
  }

  /** From now on frames join the open epoch and wait. */
  hold(): void {
    this.#isHolding = true;
  }

  /**
   * Adds a frame at the end of the queue: it waits if {@link isHolding}, else it may leave when all
   * before it have left.
   *
   * @param frame Owned by the queue: nobody may change its bytes from now on.
   */
  add(frame: Uint8Array, nowMs: number): void {
    this.#entries.push({ frame, addedAtMs: nowMs, wasHeld: this.#isHolding });
    this.#total++;
    this.#bytes += frame.length;
    if (this.#isHolding) this.#heldBytes += frame.length;
    else this.#releasable = this.#total;
  }

  /**
   * Ends the open epoch: all its frames belong to `epoch` from now on.
   *
   * @throws {StateError} unless `epoch` is greater than every epoch closed before.
   */
  closeEpoch(epoch: number): HeldEpoch {
    if (!(epoch > this.#lastClosed)) {
      throw new StateError(`epoch ${epoch} of held frames closed after epoch ${this.#lastClosed}`);
    }
    const start = this.#closedEnd();
    this.#lastClosed = epoch;
    this.#boundaries.push({ epoch, end: this.#total });
    const frames = this.#entries.slice(start - this.#base).map((entry) => entry.frame);
    return { epoch, frames, bytes: frames.reduce((sum, frame) => sum + frame.length, 0) };
  }

  /**
   * Opens this epoch and all after it again, because their transaction was cancelled: their frames
   * are in the open epoch again, and will be given out again. The numbers are used up, so that a
   * late acknowledgment finds nothing to release.
   *
   * @throws {StateError} if it has been released.
   */
  reopenEpochs(from: number): void {
    if (from <= this.#lastReleased) {
      throw new StateError(`epoch ${from} of held frames reopened after its release`);
    }
    this.#boundaries = this.#boundaries.filter(({ epoch }) => epoch < from);
  }

  /**
   * Releases the frames of this epoch and of all before it. An epoch that is not closed releases
   * nothing of the open epoch.
   *
   * @returns Frames that may leave now and could not before.
   */
  release(epoch: number): number {
    const before = this.#releasable;
    while (this.#boundaries.length > 0 && this.#boundaries[0].epoch <= epoch) {
      const boundary = this.#boundaries.shift()!;
      this.#leaving.push(boundary);
      this.#lastReleased = boundary.epoch;
      this.#advanceReleasable(boundary.end);
    }
    return this.#releasable - before;
  }

  /**
   * Releases everything, in order, and everything that comes from now on.
   *
   * @returns Frames that may leave now and could not before.
   */
  passThrough(): number {
    const before = this.#releasable;
    this.#isHolding = false;
    this.#leaving.push(...this.#boundaries);
    this.#lastReleased = this.#boundaries.at(-1)?.epoch ?? this.#lastReleased;
    this.#boundaries = [];
    this.#advanceReleasable(this.#total);
    return this.#releasable - before;
  }

  /** The frame that leaves next; `undefined` if none may. It stays until {@link taken}. */
  peek(): Uint8Array | undefined {
    return this.#taken < this.#releasable
      ? this.#entries[this.#taken - this.#base].frame
      : undefined;
  }

  /**
   * The frame that {@link peek} gave has left.
   *
   * @returns Whether it had been held.
   * @throws {StateError} if none may.
   */
  taken(nowMs: number): boolean {
    if (this.#taken >= this.#releasable) throw new StateError("a held frame left too early");
    const index = this.#taken - this.#base;
    const entry = this.#entries[index];
    if (entry.wasHeld) this.holdTime.add(nowMs - entry.addedAtMs);
    this.#bytes -= entry.frame.length;
    this.#taken++;
    if (this.#taken === this.#total) {
      this.#entries = [];
      this.#base = this.#taken;
    } else if (index >= COMPACT_AT) {
      this.#entries = this.#entries.slice(index + 1);
      this.#base = this.#taken;
    }
    return entry.wasHeld;
  }

  /** The last epoch that has left completely since the last call, if there is one. */
  takeLeftEpoch(): number | undefined {
    let epoch: number | undefined;
    while (this.#leaving.length > 0 && this.#leaving[0].end <= this.#taken) {
      epoch = this.#leaving.shift()!.epoch;
    }
    return epoch;
  }

  #closedEnd(): number {
    return Math.max(this.#boundaries.at(-1)?.end ?? 0, this.#releasable);
  }

  /**
   * Limits an epoch's end: an epoch that was closed while frames passed ends before frames released
   * since.
   */
  #advanceReleasable(end: number): void {
    if (end <= this.#releasable) return;
    for (let number = this.#releasable; number < end; number++) {
      this.#heldBytes -= this.#entries[number - this.#base].frame.length;
    }
    this.#releasable = end;
  }
}
