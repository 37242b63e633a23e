import type { LatencySummary, RecentDurations } from "../control/recent_durations.ts";

/** Keeps the last durations of one kind and summarizes them on demand. */
export class LatencyWindow {
  readonly #samples: Float64Array;
  #count = 0;
  #max = 0;

  /** @param size How many of the last durations the percentiles are taken over. */
  constructor(size = 16384) {
    this.#samples = new Float64Array(size);
  }

  add(durationMs: number): void {
    this.#samples[this.#count++ % this.#samples.length] = durationMs;
    if (durationMs > this.#max) this.#max = durationMs;
  }

  /** The last durations, oldest first; `count` is of all ever added. */
  recent(): RecentDurations {
    const size = this.#samples.length;
    const next = this.#count % size;
    const ms = this.#count <= size
      ? [...this.#samples.subarray(0, this.#count)]
      : [...this.#samples.subarray(next), ...this.#samples.subarray(0, next)];
    // No clock used here is finer than a microsecond.
    return { count: this.#count, ms: ms.map((value) => Math.round(value * 1000) / 1000) };
  }

  /** `count` and `max` are of all durations ever added. */
  summary(): LatencySummary {
    const sorted = this.#samples.slice(0, Math.min(this.#count, this.#samples.length)).sort();
    const at = (share: number) =>
      sorted.length === 0 ? 0 : sorted[Math.ceil(share * sorted.length) - 1];
    return { count: this.#count, p50: at(0.5), p99: at(0.99), max: this.#max };
  }
}
