/**
 * What a benchmark measured: the samples themselves, and enough to judge them by. Tables and
 * charts are drawn from this JSON and from nothing else.
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

/** Changes when a reader of old files would misunderstand new ones. */
export const BENCH_FORMAT = "kemari-bench";
/** 2: conditions of each experiment, grids, charts, distributions, partial runs. */
export const BENCH_VERSION = 2;

/** One quantity, measured several times. */
export interface BenchSeries {
  readonly name: string;
  /** `ms`, `MB`, `MB/s`, `syncs/s`, `×`: decimal units. */
  readonly unit: string;
  /** In the order in which they were taken. */
  readonly samples: readonly number[];
  /** What the median is meant to be. Missing it is a finding, not an error. */
  readonly target?: { readonly kind: "at-least" | "at-most"; readonly value: number };
}

/** Cells of one unit: iozone's operations (columns) in each mode (rows). */
export interface BenchGrid {
  readonly name: string;
  readonly unit: string;
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  /**
   * `cells[row][column]`: samples in the order in which they were taken. Of two rows, samples of
   * one index were taken in one round. Empty where nothing could be measured.
   */
  readonly cells: readonly (readonly (readonly number[])[])[];
}

/** What an axis counts. */
export interface BenchAxis {
  readonly name: string;
  /** Empty for a plain count. */
  readonly unit: string;
  /** `linear` if absent. */
  readonly scale?: "linear" | "log";
}

/** One line of a chart. */
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
  /** Curves stand on each other's shoulders: parts of a whole. `lines` if absent. */
  readonly kind?: "lines" | "stacked";
}

/** Many values, such as every pause of a run: kept as quantiles. */
export interface BenchDistribution {
  readonly name: string;
  readonly unit: string;
  readonly count: number;
  /** `[share, value]`, ascending, the least (share 0) and the greatest (share 1) included. */
  readonly quantiles: readonly (readonly [number, number])[];
}

/** One experiment. A ratio is a series too: each of its samples comes from one round. */
export interface BenchExperiment {
  readonly name: string;
  readonly about: string;
  /**
   * What must be the same in another run for the two to be compared, beyond the machine: `qemu`,
   * `accelerator`, `guest memory`, `link`, `file size`, …
   */
  readonly conditions: Readonly<Record<string, string>>;
  readonly series: readonly BenchSeries[];
  readonly grids?: readonly BenchGrid[];
  readonly charts?: readonly BenchChart[];
  readonly distributions?: readonly BenchDistribution[];
  /** What a reader must know: which program ran, what was left out and why. */
  readonly notes: readonly string[];
  /** What this machine cannot show, each a sentence. */
  readonly cannotShow: readonly string[];
  /** Present when it was interrupted: how far it came. */
  readonly partial?: string;
}

/** The machine: runs on different ones are never compared. */
interface BenchMachine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly deno: string;
  /** `kvm` if VMs could have used it, else `tcg`. */
  readonly accelerator: "kvm" | "tcg";
  /** The machine is itself a VM: its host may take its time away. */
  readonly virtual: boolean;
}

/** A whole run, as written to the JSON file. */
export interface BenchReport {
  readonly format: typeof BENCH_FORMAT;
  readonly version: typeof BENCH_VERSION;
  readonly kemari: string;
  /** Commit of the sources; with `+` if they were changed since. Null outside a repository. */
  readonly commit: string | null;
  /** ISO 8601. */
  readonly startedAt: string;
  readonly quick: boolean;
  readonly full: boolean;
  readonly machine: BenchMachine;
  readonly experiments: readonly BenchExperiment[];
  /** Experiments that were asked for and did not run to their end, with the reason. */
  readonly missing: readonly { readonly name: string; readonly why: string }[];
}

export function encodeBenchReport(report: BenchReport): string {
  return JSON.stringify(report, null, 2) + "\n";
}

/**
 * Reads a report.
 *
 * @throws {UsageError} It is none, or of another version.
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
