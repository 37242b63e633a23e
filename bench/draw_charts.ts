import { StateError } from "../lib/errors.ts";
import { type Drawing, drawingsOf } from "../lib/report/bench_drawing.ts";
import type { BenchReport } from "../lib/report/bench_result.ts";

/** A drawn chart. */
interface DrawnChart {
  readonly experiment: string;
  /** Unique in the report, and usable as a file name. */
  readonly name: string;
  /** The text of an SVG file. */
  readonly svg: string;
}

/** Draws every chart of a report. */
export async function drawCharts(report: BenchReport): Promise<DrawnChart[]> {
  const wanted = report.experiments.flatMap((experiment) =>
    drawingsOf(experiment).map((each) => ({ experiment: experiment.name, ...each }))
  );
  if (wanted.length === 0) return [];
  const svgs = await drawInWorker(wanted.map(({ drawing }) => drawing));
  return wanted.map(({ experiment, name }, i) => ({ experiment, name, svg: svgs[i] }));
}

async function drawInWorker(drawings: readonly Drawing[]): Promise<readonly string[]> {
  const worker = new Worker(new URL("./chart_worker.ts", import.meta.url), { type: "module" });
  try {
    return await new Promise<readonly string[]>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new StateError(`a chart could not be drawn: ${event.message}`));
      };
      worker.postMessage(drawings);
    });
  } finally {
    worker.terminate();
  }
}
