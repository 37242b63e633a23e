import { TransportError } from "../lib/errors.ts";
import {
  type BenchReport,
  decodeBenchReport,
  encodeBenchReport,
} from "../lib/report/bench_result.ts";
import { formatBenchHtml } from "../lib/report/bench_html.ts";
import { formatBenchReport } from "../lib/report/bench_table.ts";
import { drawCharts } from "./draw_charts.ts";

/**
 * Writes a report into a folder, which is made if it is missing: `bench.json`, and `bench.md` with
 * tables made from the written JSON.
 *
 * @throws {TransportError} A file cannot be written.
 */
export function saveReport(report: BenchReport, folder: string): void {
  const json = encodeBenchReport(report);
  makeFolder(folder);
  write(`${folder}/bench.json`, json);
  write(`${folder}/bench.md`, formatBenchReport(decodeBenchReport(json)));
}

/**
 * Draws the charts of a report into its folder: `NAME.svg` each, and `bench.html` with all of them
 * and the tables.
 *
 * @returns Path of the HTML file.
 * @throws {TransportError} A file cannot be written.
 */
export async function saveCharts(report: BenchReport, folder: string): Promise<string> {
  const charts = await drawCharts(report);
  const byExperiment = new Map<string, string[]>();
  for (const { experiment, name, svg } of charts) {
    write(`${folder}/${name}.svg`, svg);
    byExperiment.set(experiment, [...byExperiment.get(experiment) ?? [], svg]);
  }
  const file = `${folder}/bench.html`;
  write(file, formatBenchHtml(report, byExperiment));
  return file;
}

/**
 * Reads a report.
 *
 * @param place The JSON file, or the folder of a run.
 * @throws {TransportError} The file cannot be read. @throws {UsageError} The file is not a report.
 */
export function readReport(place: string): BenchReport {
  let text: string;
  try {
    const path = Deno.statSync(place).isDirectory ? `${place}/bench.json` : place;
    text = Deno.readTextFileSync(path);
  } catch (cause) {
    throw new TransportError(place, "read", `cannot be read: ${(cause as Error).message}`, {
      hint: "name a run's bench.json, or the folder that --out named",
      cause,
    });
  }
  return decodeBenchReport(text);
}

/** Checks that a folder can be written to, before an hour is spent on measuring. */
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

/** Writes a file so that readers never see half of it, even if the run is killed. */
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
