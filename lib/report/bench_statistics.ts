/** What a handful of samples amounts to. */
export interface SampleSummary {
  readonly count: number;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Half of the distance between the quartiles, in percent of the median. */
  readonly spreadPercent: number;
}

/**
 * The value below which a share of the samples lies, interpolated between neighbours.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(quantile([4, 1, 3, 2], 0.5), 2.5);
 * ```
 *
 * @param share From 0 to 1.
 * @returns NaN of no samples.
 */
export function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  if (sorted.length === 0) return NaN;
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

/** Median and spread rather than mean and deviation: a shared machine has outliers to one side. */
export function summarize(samples: readonly number[]): SampleSummary {
  const middle = median(samples);
  const width = quantile(samples, 0.75) - quantile(samples, 0.25);
  return {
    count: samples.length,
    median: middle,
    min: quantile(samples, 0),
    max: quantile(samples, 1),
    spreadPercent: middle === 0 ? 0 : Math.abs(width / 2 / middle) * 100,
  };
}

/** The ratio of each pair of samples that were taken in one round. */
export function pairedRatios(above: readonly number[], below: readonly number[]): number[] {
  const rounds = Math.min(above.length, below.length);
  return Array.from({ length: rounds }, (_, i) => above[i] / below[i]);
}
