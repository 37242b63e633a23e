import { delay } from "./delay.ts";

/** Time for code that waits and counts: the system's, or a test's, which nobody has to sit out. */
export interface Clock {
  /** Milliseconds since some moment; they only grow. */
  now(): number;
  /** Resolves after so many milliseconds. */
  delay(durationMs: number): Promise<void>;
}

export const SYSTEM_CLOCK: Clock = { now: () => performance.now(), delay };
