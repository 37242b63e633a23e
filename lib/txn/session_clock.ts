import { heartbeatPeriodMs, type Hello } from "./hello.ts";

/**
 * When an end of a session has last been heard, and has last said something. The time is handed in:
 * milliseconds of a clock that never goes back. Every byte that comes counts as heard, of whatever frame.
 */
export class SessionClock {
  readonly #own: { readonly heartbeatMs: number; readonly graceMs: number };
  #now: number;
  #heardAt: number;
  #saidAt: number;

  /** @param own This end's times. */
  constructor(own: { readonly heartbeatMs: number; readonly graceMs: number }, now: number) {
    this.#own = own;
    this.#now = this.#heardAt = this.#saidAt = now;
  }

  get now(): number {
    return this.#now;
  }
  /** How long the peer has been silent. */
  get silentMs(): number {
    return this.#now - this.#heardAt;
  }
  /** Whether that is longer than this end waits. */
  get isLost(): boolean {
    return this.silentMs > this.#own.graceMs;
  }

  /** Time has passed. */
  tick(now: number): void {
    this.#now = now;
  }

  /** The peer has said something, or nobody has listened until now. */
  heard(now: number): void {
    this.#now = this.#heardAt = now;
  }

  /** This end says something. */
  said(): void {
    this.#saidAt = this.#now;
  }

  /** Whether this end has been silent for so long that it has to say something. */
  mustSpeak(peer: Hello | undefined): boolean {
    return this.#now - this.#saidAt >= heartbeatPeriodMs(this.#own, peer);
  }
}
