/** The numbers of an experiment as rows of text, for Markdown and HTML alike. */
import type {
  BenchChart,
  BenchDistribution,
  BenchExperiment,
  BenchGrid,
  BenchReport,
  BenchSeries,
} from "./bench_result.ts";
import { median, quantile, summarize } from "./bench_statistics.ts";

/** Rows under a heading; the first column holds names. */
export interface BenchTable {
  readonly title?: string;
  readonly heading: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** All tables of an experiment. */
export function tablesOf(experiment: BenchExperiment): BenchTable[] {
  const tables: BenchTable[] = [];
  if (experiment.series.length > 0) {
    tables.push({ heading: SERIES_HEADING, rows: experiment.series.map(formatSeries) });
  }
  tables.push(...(experiment.grids ?? []).map(gridTable));
  tables.push(...(experiment.charts ?? []).map(chartTable));
  const distributions = experiment.distributions ?? [];
  if (distributions.length > 0) {
    tables.push({ heading: DISTRIBUTION_HEADING, rows: distributions.map(formatDistribution) });
  }
  return tables;
}

/** The measured program and the machine: one line each. */
export function headOf(report: BenchReport): string[] {
  const { machine } = report;
  return [
    `kemari ${report.kemari}, commit ${report.commit ?? "unknown"}, ${report.startedAt}` +
    (report.quick ? ", quick: too few samples to cite" : ""),
    `${machine.cores} cores ${machine.cpu}, ${(machine.memoryBytes / 1e9).toFixed(0)} GB, ` +
    `Linux ${machine.kernel}, Deno ${machine.deno}, ${machine.accelerator.toUpperCase()}` +
    (machine.virtual ? ", itself a VM" : ""),
  ];
}

/** The conditions of an experiment in one line; empty if there are none. */
export function sayConditions(conditions: BenchExperiment["conditions"]): string {
  return Object.entries(conditions).map(([key, value]) => `${key} ${value}`).join(", ");
}

const SERIES_HEADING = ["", "median", "unit", "spread", "range", "n", "target"];

function formatSeries(series: BenchSeries): string[] {
  const { count, median, min, max, spreadPercent } = summarize(series.samples);
  return [
    series.name,
    formatValue(median),
    series.unit,
    `±${spreadPercent.toFixed(0)} %`,
    `${formatValue(min)}–${formatValue(max)}`,
    String(count),
    formatTarget(series, median),
  ];
}

/** Whether a series reached its target; empty if there is no target. */
function formatTarget({ target }: BenchSeries, median: number): string {
  if (target === undefined) return "";
  const met = target.kind === "at-least" ? median >= target.value : median <= target.value;
  return `${target.kind === "at-least" ? "≥" : "≤"} ${target.value} ${met ? "met" : "MISSED"}`;
}

/** Medians, followed by the spread if there is one. */
function gridTable(grid: BenchGrid): BenchTable {
  return {
    title: `${grid.name}, ${grid.unit}`,
    heading: ["", ...grid.columns],
    rows: grid.rows.map((row, i) => [row, ...grid.cells[i].map(formatCell)]),
  };
}

/** The cell of a grid as text: `12.3 ±4 %`, or `none`. */
function formatCell(samples: readonly number[]): string {
  if (samples.length === 0) return "none";
  const { count, median, spreadPercent } = summarize(samples);
  return count > 1 ? `${formatValue(median)} ±${spreadPercent.toFixed(0)} %` : formatValue(median);
}

/** A long curve is shown by its middle and its ends, a short curve by all points. */
const TOLD_POINTS = 16;

function chartTable(chart: BenchChart): BenchTable {
  const unit = (axis: { name: string; unit: string }) =>
    axis.unit === "" ? axis.name : `${axis.name} (${axis.unit})`;
  const title = `${chart.name}: ${unit(chart.y)} over ${unit(chart.x)}`;
  const xs = [...new Set(chart.curves.flatMap(({ points }) => points.map(([x]) => x)))]
    .sort((a, b) => a - b);
  if (xs.length > TOLD_POINTS) {
    const rows = chart.curves.map(({ name, points }) => {
      const ys = points.flatMap(([, y]) => y === null ? [] : [y]);
      return [name, ...[median(ys), quantile(ys, 0), quantile(ys, 1)].map(formatValue)]
        .concat(String(ys.length));
    });
    return { title, heading: ["", "median", "least", "most", "points"], rows };
  }
  const rows = xs.map((x) => [
    String(Number(x.toPrecision(6))),
    ...chart.curves.map(({ points }) => {
      const y = points.find((point) => point[0] === x)?.[1];
      return y === undefined || y === null ? "" : formatValue(y);
    }),
  ]);
  const heading = [unit(chart.x), ...chart.curves.map(({ name }) => name)];
  return { title, heading, rows };
}

const DISTRIBUTION_HEADING = ["", "unit", "p0", "p50", "p90", "p99", "p100", "n"];

function formatDistribution({ name, unit, count, quantiles }: BenchDistribution): string[] {
  const at = (share: number) => quantiles.find(([each]) => each >= share)?.[1] ?? NaN;
  return [name, unit, ...[0, 0.5, 0.9, 0.99, 1].map((share) => formatValue(at(share)))]
    .concat(String(count));
}

/** Formats with three significant digits. */
export function formatValue(value: number): string {
  if (!Number.isFinite(value)) return "none";
  const digits = Math.max(0, Math.min(5, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
  return value.toFixed(digits);
}
