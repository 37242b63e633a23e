import type { Clock } from "../clock.ts";

/** A clock for tests, by which time passes exactly when somebody waits, and then at once. */
export class FakeClock implements Clock {
  #nowMs = 0;

  now(): number {
    return this.#nowMs;
  }

  delay(durationMs: number): Promise<void> {
    this.#nowMs += durationMs;
    return Promise.resolve();
  }
}
