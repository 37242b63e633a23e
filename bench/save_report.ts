import { TransportError } from "../lib/errors.ts";
import {
  type BenchReport,
  decodeBenchReport,
  encodeBenchReport,
} from "../lib/report/bench_result.ts";
import { formatBenchReport } from "../lib/report/bench_table.ts";

/**
 * Writes a report into a folder, which is made if it is missing: `bench.json`, and `bench.md` with
 * tables that are drawn from the JSON as written.
 *
 * @throws {TransportError} A file cannot be written.
 */
export function saveReport(report: BenchReport, folder: string): void {
  const json = encodeBenchReport(report);
  makeFolder(folder);
  write(`${folder}/bench.json`, json);
  write(`${folder}/bench.md`, formatBenchReport(decodeBenchReport(json)));
}

/** Refuses a folder that cannot be written to before an hour is spent on measuring. */
export function checkPlace(folder: string): void {
  makeFolder(folder);
  const probe = `${folder}/.kemari-probe`;
  write(probe, "");
  Deno.removeSync(probe);
}

function makeFolder(path: string): void {
  try {
    Deno.mkdirSync(path, { recursive: true });
  } catch (cause) {
    throw notWritten(path, cause);
  }
}

/** A reader never sees half a file, however the run ends. */
function write(path: string, text: string): void {
  try {
    Deno.writeTextFileSync(`${path}.tmp`, text);
    Deno.renameSync(`${path}.tmp`, path);
  } catch (cause) {
    throw notWritten(path, cause);
  }
}

function notWritten(path: string, cause: unknown): TransportError {
  return new TransportError(path, "write", `cannot be written: ${(cause as Error).message}`, {
    cause,
  });
}
