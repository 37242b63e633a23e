import { delay } from "./delay.ts";

/**
 * Time for code that waits and counts: the system's clock, or in tests a clock that is set by hand.
 */
export interface Clock {
  /** Milliseconds since some moment; the count never goes back. */
  now(): number;
  /** Resolves after so many milliseconds. */
  delay(durationMs: number): Promise<void>;
}

export const SYSTEM_CLOCK: Clock = { now: () => performance.now(), delay };
