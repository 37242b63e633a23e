/** Draws charts in a worker, so that the charting library is loaded only there. */
import type { Drawing } from "../lib/report/bench_drawing.ts";
import { drawSvg } from "../lib/report/chart_svg.ts";

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<readonly Drawing[]>) => void) | null;
  postMessage(svgs: readonly string[]): void;
}

const scope = self as unknown as WorkerScope;
scope.onmessage = ({ data }) => scope.postMessage(data.map(drawSvg));
