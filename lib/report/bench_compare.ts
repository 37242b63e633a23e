/**
 * Finds what changed between two runs beyond noise.
 *
 * A change is reported if both are true:
 * - the samples' ranks differ by more than chance explains (Mann–Whitney, exact, p < 0.05,
 *   two-sided: at least four samples a side are necessary; a curve's points are paired by x and
 *   judged by the sign test, with at least six points);
 * - the medians differ by more than 3 % and by more than both sides' spreads together (half the
 *   distance between the quartiles): a small difference, even if significant, mostly comes from the
 *   machine's state.
 */
import { UsageError } from "../errors.ts";
import type { BenchExperiment, BenchReport } from "./bench_result.ts";
import { median, quantile } from "./bench_statistics.ts";

const SIGNIFICANCE = 0.05;
const LEAST_CHANGE = 0.03;
/** Machines of one kind report slightly different memory sizes: their firmware takes a part. */
const MEMORY_TOLERANCE = 0.05;

type Verdict = "higher" | "lower" | "same" | "too few samples";

/** A quantity in both runs. */
export interface Difference {
  readonly experiment: string;
  /** The series; of a grid `row, column`; of a chart `chart: curve`. */
  readonly name: string;
  readonly unit: string;
  /** Medians. Of a curve the median of its points. */
  readonly before: number;
  readonly after: number;
  /** after / before; of a curve the median of the points' ratios. */
  readonly ratio: number;
  readonly verdict: Verdict;
}

/** Two runs against each other. */
export interface Comparison {
  readonly differences: readonly Difference[];
  /** Experiments and quantities that only one of the two runs has. */
  readonly onlyBefore: readonly string[];
  readonly onlyAfter: readonly string[];
}

/**
 * Compares two runs.
 *
 * @param names Which experiments; if empty, all that both runs have.
 * @throws {UsageError} The runs were made under different conditions, which the message names.
 */
export function compareBenchReports(
  before: BenchReport,
  after: BenchReport,
  names: readonly string[] = [],
): Comparison {
  const pick = (report: BenchReport) =>
    report.experiments.filter(({ name }) => names.length === 0 || names.includes(name));
  const [first, second] = [pick(before), pick(after)];
  for (const name of names) {
    if ([first, second].every((list) => list.some((each) => each.name === name))) continue;
    throw new UsageError(`not both runs have the experiment "${name}"`);
  }
  const shared = first.flatMap((one) => {
    const other = second.find(({ name }) => name === one.name);
    return other === undefined ? [] : [[one, other] as const];
  });
  if (shared.length === 0) throw new UsageError("the two runs have no experiment in common");
  refuseUnlike([
    ...unlikeMachines(before, after),
    ...shared.flatMap(([one, other]) => unlikeConditions(one, other)),
  ]);
  const differences: Difference[] = [];
  const onlyBefore = without(first, second);
  const onlyAfter = without(second, first);
  for (const [one, other] of shared) {
    const [mine, theirs] = [quantitiesOf(one), quantitiesOf(other)];
    for (const [name, quantity] of mine) {
      const match = theirs.get(name);
      if (match === undefined) onlyBefore.push(`${one.name}: ${name}`);
      else differences.push({ experiment: one.name, name, ...judge(quantity, match) });
    }
    for (const name of theirs.keys()) {
      if (!mine.has(name)) onlyAfter.push(`${one.name}: ${name}`);
    }
  }
  return { differences, onlyBefore, onlyAfter };
}

function without(list: readonly BenchExperiment[], other: readonly BenchExperiment[]): string[] {
  return list.map(({ name }) => name).filter((name) => !other.some((each) => each.name === name));
}

function refuseUnlike(reasons: readonly string[]): void {
  if (reasons.length === 0) return;
  throw new UsageError(
    `the two runs were made under different conditions: ${reasons.join("; ")}`,
    { hint: "Measure both on one machine with one setting; only the commit may differ" },
  );
}

function unlikeMachines(before: BenchReport, after: BenchReport): string[] {
  const reasons: string[] = [];
  const differ = (what: string, one: unknown, other: unknown) => {
    if (one !== other) reasons.push(`${what} ${one} and ${other}`);
  };
  const [mine, theirs] = [before.machine, after.machine];
  for (const key of ["cpu", "cores", "kernel", "deno", "accelerator", "virtual"] as const) {
    differ(key, mine[key], theirs[key]);
  }
  if (Math.abs(mine.memoryBytes / theirs.memoryBytes - 1) > MEMORY_TOLERANCE) {
    differ("memory", `${mine.memoryBytes} B`, `${theirs.memoryBytes} B`);
  }
  differ("settings", ...[before, after].map(saySettings) as [string, string]);
  return reasons;
}

function saySettings({ quick, full }: BenchReport): string {
  return quick ? "quick" : full ? "full" : "normal";
}

function unlikeConditions(one: BenchExperiment, other: BenchExperiment): string[] {
  const keys = new Set([...Object.keys(one.conditions), ...Object.keys(other.conditions)]);
  return [...keys].filter((key) => one.conditions[key] !== other.conditions[key])
    .map((key) =>
      `${one.name}'s ${key} ${one.conditions[key] ?? "unknown"} and ` +
      `${other.conditions[key] ?? "unknown"}`
    );
}

type Points = readonly (readonly [number, number | null])[];

interface Quantity {
  readonly unit: string;
  readonly samples?: readonly number[];
  readonly points?: Points;
}

/**
 * The quantities of an experiment that can be compared. Curves over time cannot: their points
 * depend on each other. Distributions cannot: a single run does not show how much they vary.
 */
function quantitiesOf(experiment: BenchExperiment): Map<string, Quantity> {
  const found = new Map<string, Quantity>();
  for (const { name, unit, samples } of experiment.series) found.set(name, { unit, samples });
  for (const grid of experiment.grids ?? []) {
    grid.rows.forEach((row, r) =>
      grid.columns.forEach((column, c) => {
        const samples = grid.cells[r][c];
        const name = `${grid.name}, ${row}, ${column}`;
        if (samples.length > 0) found.set(name, { unit: grid.unit, samples });
      })
    );
  }
  for (const chart of experiment.charts ?? []) {
    if (chart.x.name === "time") continue;
    for (const { name, points } of chart.curves) {
      found.set(`${chart.name}: ${name}`, { unit: chart.y.unit, points });
    }
  }
  return found;
}

function judge(before: Quantity, after: Quantity): Omit<Difference, "experiment" | "name"> {
  return before.points !== undefined && after.points !== undefined
    ? { unit: before.unit, ...judgePoints(before.points, after.points) }
    : { unit: before.unit, ...judgeSamples(before.samples ?? [], after.samples ?? []) };
}

type Judgement = Pick<Difference, "before" | "after" | "ratio" | "verdict">;

function judgeSamples(before: readonly number[], after: readonly number[]): Judgement {
  const [low, high] = [median(before), median(after)];
  const told = { before: low, after: high, ratio: high / low };
  if (leastP(before.length, after.length) >= SIGNIFICANCE) {
    return { ...told, verdict: "too few samples" };
  }
  const change = Math.abs(high - low);
  const noise = Math.max(halfWidth(before) + halfWidth(after), LEAST_CHANGE * Math.abs(low));
  const isChange = change > noise && rankP(before, after) < SIGNIFICANCE;
  return { ...told, verdict: isChange ? direction(high - low) : "same" };
}

function judgePoints(before: Points, after: Points): Judgement {
  const pairs = before.flatMap(([x, y]) => {
    const other = after.find((point) => point[0] === x)?.[1] ?? null;
    return y === null || other === null ? [] : [[y, other] as const];
  });
  const ratios = pairs.map(([one, other]) => other / one);
  const told = {
    before: median(pairs.map(([one]) => one)),
    after: median(pairs.map(([, other]) => other)),
    ratio: median(ratios),
  };
  const apart = ratios.filter((ratio) => ratio !== 1);
  const more = apart.filter((ratio) => ratio > 1).length;
  if (2 * 0.5 ** pairs.length >= SIGNIFICANCE) return { ...told, verdict: "too few samples" };
  const change = Math.abs(told.ratio - 1);
  const isChange = change > Math.max(LEAST_CHANGE, halfWidth(ratios)) &&
    signP(more, apart.length) < SIGNIFICANCE;
  return { ...told, verdict: isChange ? direction(told.ratio - 1) : "same" };
}

function direction(change: number): Verdict {
  return change > 0 ? "higher" : "lower";
}

function halfWidth(samples: readonly number[]): number {
  return (quantile(samples, 0.75) - quantile(samples, 0.25)) / 2;
}

/** The smallest p that this number of samples can give. */
function leastP(n: number, m: number): number {
  return n === 0 || m === 0 ? 1 : 2 / waysToRank(n, m, n * m).reduce((sum, ways) => sum + ways, 0);
}

/**
 * The probability that chance alone gives ranks as different as those of two lists: Mann–Whitney's
 * U, two-sided.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(rankP([1, 2, 3, 4], [5, 6, 7, 8]), 2 / 70);
 * ```
 */
export function rankP(one: readonly number[], other: readonly number[]): number {
  let u = 0;
  for (const a of one) for (const b of other) u += a < b ? 1 : a === b ? 0.5 : 0;
  const pairs = one.length * other.length;
  const least = Math.ceil(Math.min(u, pairs - u));
  const ways = waysToRank(one.length, other.length, pairs);
  const all = ways.reduce((sum, count) => sum + count, 0);
  const tail = ways.slice(0, least + 1).reduce((sum, count) => sum + count, 0);
  return Math.min(1, 2 * tail / all);
}

/** The number of orders of n and m samples for which U is 0, 1, … `most`. */
function waysToRank(n: number, m: number, most: number): number[] {
  // Partitions into at most n parts of at most m each: the Gaussian binomial, factor by factor.
  const ways = new Array<number>(most + 1).fill(0);
  ways[0] = 1;
  for (let i = 1; i <= n; i++) {
    for (let u = most; u >= m + i; u--) ways[u] -= ways[u - m - i];
    for (let u = i; u <= most; u++) ways[u] += ways[u - i];
  }
  return ways;
}

/** The probability that chance alone splits `count` signs as unevenly. */
function signP(more: number, count: number): number {
  const least = Math.min(more, count - more);
  let term = 0.5 ** count;
  let tail = 0;
  for (let i = 0; i <= least; i++) {
    tail += term;
    term *= (count - i) / (i + 1);
  }
  return Math.min(1, 2 * tail);
}
