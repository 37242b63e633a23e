/**
 * The result of a benchmark: the samples themselves, and the conditions for judging them. Tables
 * and charts are made from this JSON alone.
 *
 * ```text
 * BenchReport             one run: which commit, on which machine
 * └── BenchExperiment     one `kemari bench NAME`, and under which conditions
 *     ├── BenchSeries     a quantity, measured several times           → a row of a table
 *     ├── BenchGrid       one unit, rows × columns of such quantities  → a table, grouped bars
 *     ├── BenchChart      curves over a common axis: time, size, ratio → a line chart
 *     └── BenchDistribution  thousands of values, kept as quantiles    → a cumulative chart
 * ```
 */
import { UsageError } from "../errors.ts";
import { isSoundExperiment } from "./bench_shape.ts";

/** Changes when a program for old files would misunderstand new files. */
export const BENCH_FORMAT = "kemari-bench";
/** 2: conditions of each experiment, grids, charts, distributions, partial runs. */
export const BENCH_VERSION = 2;

/** A quantity that was measured several times. */
export interface BenchSeries {
  readonly name: string;
  /** `ms`, `MB`, `MB/s`, `syncs/s`, `×`: decimal units. */
  readonly unit: string;
  /** In the order in which they were taken. */
  readonly samples: readonly number[];
  /** The goal for the median. Missing the goal is a result, not an error. */
  readonly target?: { readonly kind: "at-least" | "at-most"; readonly value: number };
}

/** Cells of one unit: iozone's operations (columns) in each mode (rows). */
export interface BenchGrid {
  readonly name: string;
  readonly unit: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /**
   * `cells[row][column]`: samples in the order in which they were taken. Samples of different rows
   * with the same index were taken in the same round. Empty where nothing could be measured.
   */
  readonly cells: readonly (readonly (readonly number[])[])[];
}

/** The quantity of an axis. */
export interface BenchAxis {
  readonly name: string;
  /** Empty for a plain count. */
  readonly unit: string;
  /** `linear` if absent. */
  readonly scale?: "linear" | "log";
}

/** A line of a chart. */
interface BenchCurve {
  readonly name: string;
  /** `[x, y]`, x ascending; y is null where nothing could be measured. */
  readonly points: readonly (readonly [number, number | null])[];
}

/** Curves that share their axes: time series, or a quantity over a size. */
export interface BenchChart {
  readonly name: string;
  readonly x: BenchAxis;
  readonly y: BenchAxis;
  readonly curves: readonly BenchCurve[];
  /** Whether the curves are stacked, as parts of a whole. `lines` if absent. */
  readonly kind?: "lines" | "stacked";
}

/** Many values, such as every pause of a run, kept as quantiles. */
export interface BenchDistribution {
  readonly name: string;
  readonly unit: string;
  readonly count: number;
  /** `[share, value]`, ascending, the least (share 0) and the greatest (share 1) included. */
  readonly quantiles: readonly (readonly [number, number])[];
}

/**
 * The result of an experiment. A ratio is a series too: each of its samples comes from one round.
 */
export interface BenchExperiment {
  readonly name: string;
  readonly about: string;
  /**
   * Conditions, besides the machine, that must be equal for two runs to be comparable: `qemu`,
   * `accelerator`, `guest memory`, `link`, `file size`, …
   */
  readonly conditions: Readonly<Record<string, string>>;
  readonly series: readonly BenchSeries[];
  readonly grids?: readonly BenchGrid[];
  readonly charts?: readonly BenchChart[];
  readonly distributions?: readonly BenchDistribution[];
  /** Notes for the reader: which program ran, what was left out and why. */
  readonly notes: readonly string[];
  /** What cannot be shown on this machine, each in a sentence. */
  readonly cannotShow: readonly string[];
  /** Present if the experiment was interrupted: how far it got. */
  readonly partial?: string;
}

/** The machine: runs on different machines are never compared. */
interface BenchMachine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly deno: string;
  /** `kvm` if VMs could have used it, else `tcg`. */
  readonly accelerator: "kvm" | "tcg";
  /** Whether the machine is itself a VM: its host may take CPU time away. */
  readonly virtual: boolean;
}

/** A whole run, as written to the JSON file. */
export interface BenchReport {
  readonly format: typeof BENCH_FORMAT;
  readonly version: typeof BENCH_VERSION;
  readonly kemari: string;
  /**
   * Commit of the sources; with `+` if the sources were changed since. Null outside a repository.
   */
  readonly commit: string | null;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly quick: boolean;
  readonly full: boolean;
  readonly machine: BenchMachine;
  readonly experiments: readonly BenchExperiment[];
  /** Experiments that were requested and did not complete, with the reason. */
  readonly missing: readonly { readonly name: string; readonly why: string }[];
}

export function encodeBenchReport(report: BenchReport): string {
  return JSON.stringify(report, null, 2) + "\n";
}

/**
 * Reads a report.
 *
 * @throws {UsageError} It is not a report, or has another version.
 */
export function decodeBenchReport(text: string): BenchReport {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UsageError("the benchmark's file is not JSON", { cause });
  }
  const report = value as BenchReport;
  if (!isRecord(value) || value.format !== BENCH_FORMAT) {
    throw new UsageError("the JSON is no benchmark's");
  }
  if (value.version !== BENCH_VERSION) {
    throw new UsageError(
      `the benchmark's file has version ${value.version}, this program reads ${BENCH_VERSION}`,
      { hint: "measure again with this program" },
    );
  }
  const sound = isRecord(value.machine) && typeof value.quick === "boolean" &&
    Array.isArray(value.missing) && Array.isArray(value.experiments) &&
    value.experiments.every(isSoundExperiment);
  if (!sound) throw new UsageError("the benchmark's file is incomplete");
  return report;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
