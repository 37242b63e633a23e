import type {
  BenchChart,
  BenchDistribution,
  BenchExperiment,
  BenchGrid,
  BenchReport,
  BenchSeries,
} from "./bench_result.ts";
import { median, quantile, summarize } from "./bench_statistics.ts";

/** Draws a report for people, as Markdown that also reads well on a terminal. */
export function formatBenchReport(report: BenchReport): string {
  const { machine } = report;
  const lines = [
    `kemari ${report.kemari}, commit ${report.commit ?? "unknown"}, ${report.startedAt}` +
    (report.quick ? ", quick: too few samples to cite" : ""),
    `${machine.cores} cores ${machine.cpu}, ${(machine.memoryBytes / 1e9).toFixed(0)} GB, ` +
    `Linux ${machine.kernel}, Deno ${machine.deno}, ${machine.accelerator.toUpperCase()}` +
    (machine.virtual ? ", itself a VM" : ""),
  ];
  for (const experiment of report.experiments) lines.push("", ...formatExperiment(experiment));
  if (report.missing.length > 0) lines.push("", "## Missing");
  for (const { name, why } of report.missing) lines.push(`- ${name}: ${why}`);
  return lines.join("\n") + "\n";
}

function formatExperiment(experiment: BenchExperiment): string[] {
  const { name, about, partial, conditions } = experiment;
  const lines = [`## ${name}${partial === undefined ? "" : ` (partial: ${partial})`}`, about];
  const said = Object.entries(conditions).map(([key, value]) => `${key} ${value}`);
  if (said.length > 0) lines.push(`Conditions: ${said.join(", ")}`);
  const rows = experiment.series.map(formatSeries);
  if (rows.length > 0) {
    lines.push("", ...alignRows([SERIES_HEADING, ...rows]));
  }
  for (const grid of experiment.grids ?? []) lines.push("", ...formatGrid(grid));
  for (const chart of experiment.charts ?? []) lines.push("", ...formatChart(chart));
  const distributions = experiment.distributions ?? [];
  if (distributions.length > 0) {
    lines.push("", ...alignRows([DISTRIBUTION_HEADING, ...distributions.map(formatDistribution)]));
  }
  const { notes, cannotShow } = experiment;
  if (notes.length + cannotShow.length > 0) lines.push("");
  for (const note of notes) lines.push(`- ${note}`);
  for (const limit of cannotShow) lines.push(`- cannot be shown here: ${limit}`);
  return lines;
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

/** Whether a series reached its target; empty if it has none. */
export function formatTarget({ target }: BenchSeries, median: number): string {
  if (target === undefined) return "";
  const met = target.kind === "at-least" ? median >= target.value : median <= target.value;
  return `${target.kind === "at-least" ? "≥" : "≤"} ${target.value} ${met ? "met" : "MISSED"}`;
}

/** Medians, with the spread behind them where there is one. */
function formatGrid(grid: BenchGrid): string[] {
  const rows = grid.rows.map((row, i) => [row, ...grid.cells[i].map(formatCell)]);
  return [`${grid.name}, ${grid.unit}`, "", ...alignRows([["", ...grid.columns], ...rows])];
}

/** The cell of a grid as text: `12.3 ±4 %`, or `none`. */
export function formatCell(samples: readonly number[]): string {
  if (samples.length === 0) return "none";
  const { count, median, spreadPercent } = summarize(samples);
  return count > 1 ? `${formatValue(median)} ±${spreadPercent.toFixed(0)} %` : formatValue(median);
}

/** A curve of many points is told by its middle and its ends; a short one by all of them. */
const TOLD_POINTS = 16;

function formatChart(chart: BenchChart): string[] {
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
    return [title, "", ...alignRows([["", "median", "least", "most", "points"], ...rows])];
  }
  const rows = xs.map((x) => [
    String(Number(x.toPrecision(6))),
    ...chart.curves.map(({ points }) => {
      const y = points.find((point) => point[0] === x)?.[1];
      return y === undefined || y === null ? "" : formatValue(y);
    }),
  ]);
  const heading = [unit(chart.x), ...chart.curves.map(({ name }) => name)];
  return [title, "", ...alignRows([heading, ...rows])];
}

const DISTRIBUTION_HEADING = ["", "unit", "p0", "p50", "p90", "p99", "p100", "n"];

function formatDistribution({ name, unit, count, quantiles }: BenchDistribution): string[] {
  const at = (share: number) => quantiles.find(([each]) => each >= share)?.[1] ?? NaN;
  return [name, unit, ...[0, 0.5, 0.9, 0.99, 1].map((share) => formatValue(at(share)))]
    .concat(String(count));
}

/** Three digits that mean something. */
export function formatValue(value: number): string {
  if (!Number.isFinite(value)) return "none";
  const digits = Math.max(0, Math.min(5, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
  return value.toFixed(digits);
}

function alignRows(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const line = (row: readonly string[]) =>
    `| ${
      row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join(" | ")
    } |`;
  const rule = `|${
    widths.map((width, i) => i === 0 ? `:${"-".repeat(width + 1)}` : `${"-".repeat(width + 1)}:`)
      .join("|")
  }|`;
  return [line(rows[0]), rule, ...rows.slice(1).map(line)];
}
