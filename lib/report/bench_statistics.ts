import type { BenchDistribution, BenchGrid } from "./bench_result.ts";

/** Statistics of a few samples. */
interface SampleSummary {
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
 * @returns NaN if there are no samples.
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

/** Shares at which a distribution is kept: dense at the upper end, where the long pauses are. */
const SHARES = [
  ...Array.from({ length: 50 }, (_, i) => i / 50),
  ...[0.985, 0.99, 0.995, 0.999, 1],
];

/**
 * Keeps many values as quantiles.
 *
 * @returns `undefined` if there are no values.
 */
export function distributionOf(
  name: string,
  unit: string,
  values: readonly number[],
): BenchDistribution | undefined {
  if (values.length === 0) return undefined;
  const sorted = Float64Array.from(values).sort();
  const at = (share: number) => {
    const place = share * (sorted.length - 1);
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
  };
  return {
    name,
    unit,
    count: values.length,
    quantiles: SHARES.map((share) => [share, at(share)]),
  };
}

/**
 * The ratio of each cell to the baseline row's cell in the same column and round.
 *
 * @param baseline The row that the others are compared with; the result does not contain it.
 */
export function ratioGrid(grid: BenchGrid, name: string, baseline: string): BenchGrid {
  const base = grid.cells[grid.rows.indexOf(baseline)];
  const others = grid.rows.map((row, i) => ({ row, cells: grid.cells[i] }))
    .filter(({ row }) => row !== baseline);
  return {
    name,
    unit: "×",
    rows: others.map(({ row }) => row),
    columns: grid.columns,
    cells: others.map(({ cells }) =>
      cells.map((samples, column) => pairedRatios(samples, base[column]))
    ),
  };
}
