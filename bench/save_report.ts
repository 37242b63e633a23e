import { TransportError } from "../lib/errors.ts";
import {
  type BenchReport,
  decodeBenchReport,
  encodeBenchReport,
} from "../lib/report/bench_result.ts";
import { formatBenchReport } from "../lib/report/bench_table.ts";

/** Where a report goes, besides the terminal. */
export interface ReportPlaces {
  /** For the JSON. */
  readonly jsonFile?: string;
  /** Gets `bench.json` and `bench.md`; made if it is missing. */
  readonly outFolder?: string;
}

/**
 * Writes a report.
 *
 * @returns The table, drawn from the JSON as written.
 * @throws {TransportError} A file cannot be written.
 */
export function saveReport(report: BenchReport, places: ReportPlaces): string {
  const json = encodeBenchReport(report);
  const table = formatBenchReport(decodeBenchReport(json));
  if (places.jsonFile !== undefined) write(places.jsonFile, json);
  if (places.outFolder !== undefined) {
    makeFolder(places.outFolder);
    write(`${places.outFolder}/bench.json`, json);
    write(`${places.outFolder}/bench.md`, table);
  }
  return table;
}

/** Refuses places that cannot be written to before an hour is spent on measuring. */
export function checkPlaces(places: ReportPlaces): void {
  if (places.outFolder !== undefined) makeFolder(places.outFolder);
  if (places.jsonFile === undefined) return;
  try {
    Deno.openSync(places.jsonFile, { append: true, create: true }).close();
  } catch (cause) {
    throw notWritten(places.jsonFile, cause);
  }
}

function makeFolder(path: string): void {
  try {
    Deno.mkdirSync(path, { recursive: true });
  } catch (cause) {
    throw notWritten(path, cause);
  }
}

function write(path: string, text: string): void {
  try {
    Deno.writeTextFileSync(path, text);
  } catch (cause) {
    throw notWritten(path, cause);
  }
}

function notWritten(path: string, cause: unknown): TransportError {
  return new TransportError(path, "write", `cannot be written: ${(cause as Error).message}`, {
    cause,
  });
}
