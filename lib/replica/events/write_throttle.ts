/**
 * Slows a disk's clients down while too many of their writes wait for commits.
 *
 * Above the limit requests are taken in short bursts only, the rarer the more is held: every 10 ms
 * at the limit, every quarter of a second at twice the limit and beyond. None waits for a commit: a
 * checkpoint drains the disk, and would wait for ever. So while the VM is about to be stopped,
 * requests are taken at once; and if that was not announced, a drain goes through in bursts.
 */
export class WriteThrottle {
  readonly limitBytes: number;
  #stopping = false;
  #blockedSince: number | undefined;
  #blockedUntil = 0;
  #burstUntil = -Infinity;
  #waits = 0;
  #waitedMs = 0;

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes;
  }

  /** How often requests had to wait. */
  get waits(): number {
    return this.#waits;
  }
  /** How long requests had to wait in total. */
  get waitedMs(): number {
    return this.#waitedMs;
  }
  /** When to ask again after {@link ready} has returned false, on the clock of its `now`. */
  get blockedUntil(): number {
    return this.#blockedUntil;
  }

  /** Whether requests may be taken at this time, with this much held. */
  ready(heldBytes: number, nowMs: number): boolean {
    if (heldBytes < this.limitBytes || this.#stopping) return this.#unblock(nowMs);
    if (nowMs < this.#burstUntil) return true;
    if (this.#blockedSince === undefined) {
      this.#blockedSince = nowMs;
      this.#blockedUntil = nowMs + this.delayMs(heldBytes);
      this.#waits++;
      return false;
    }
    if (nowMs < this.#blockedUntil) return false;
    this.#burstUntil = nowMs + BURST_MS;
    return this.#unblock(nowMs);
  }

  /** How long requests wait for the next burst, with this much held. */
  delayMs(heldBytes: number): number {
    const excess = Math.max(0, heldBytes / this.limitBytes - 1);
    return Math.min(MAX_DELAY_MS, MIN_DELAY_MS * (MAX_DELAY_MS / MIN_DELAY_MS) ** excess);
  }

  /** The VM is about to be stopped, which drains its disks. */
  stopping(): void {
    this.#stopping = true;
  }

  /** The VM stands still, or runs again. */
  stopped(): void {
    this.#stopping = false;
  }

  #unblock(nowMs: number): true {
    if (this.#blockedSince !== undefined) this.#waitedMs += nowMs - this.#blockedSince;
    this.#blockedSince = undefined;
    return true;
  }
}

const BURST_MS = 1;
const MIN_DELAY_MS = 10;
const MAX_DELAY_MS = 250;
