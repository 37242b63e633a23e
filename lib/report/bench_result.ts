/**
 * What a benchmark measured: the samples themselves, and enough to judge them by. Tables and
 * charts are drawn from this JSON and from nothing else.
 */
import { UsageError } from "../errors.ts";

/** Changes when a reader of old files would misunderstand new ones. */
export const BENCH_FORMAT = "kemari-bench";
export const BENCH_VERSION = 1;

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

/** One experiment. A ratio is a series too: each of its samples comes from one round. */
export interface BenchExperiment {
  readonly name: string;
  readonly about: string;
  readonly series: readonly BenchSeries[];
  /** What a reader must know: which program ran, what was left out and why. */
  readonly notes: readonly string[];
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
  readonly machine: {
    readonly cpu: string;
    readonly cores: number;
    readonly memoryBytes: number;
    readonly kernel: string;
    readonly deno: string;
  };
  readonly experiments: readonly BenchExperiment[];
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
    );
  }
  const sound = isRecord(value.machine) &&
    isList(
      value.experiments,
      (experiment) =>
        typeof experiment.name === "string" && Array.isArray(experiment.notes) &&
        isList(experiment.series, (series) =>
          typeof series.name === "string" && typeof series.unit === "string" &&
          Array.isArray(series.samples) && series.samples.every((sample) =>
            typeof sample === "number"
          )),
    );
  if (!sound) throw new UsageError("the benchmark's file is incomplete");
  return report;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isList(value: unknown, sound: (item: Record<string, unknown>) => boolean): boolean {
  return Array.isArray(value) && value.every((item) => isRecord(item) && sound(item));
}
