import type { BenchExperiment, BenchReport, BenchSeries } from "./bench_result.ts";
import { summarize } from "./bench_statistics.ts";

/** Draws a report for people, as Markdown that also reads well on a terminal. */
export function formatBenchReport(report: BenchReport): string {
  const { machine } = report;
  const lines = [
    `kemari ${report.kemari}, commit ${report.commit ?? "unknown"}, ${report.startedAt}` +
    (report.quick ? ", quick: too few samples to cite" : ""),
    `${machine.cores} cores ${machine.cpu}, ${(machine.memoryBytes / 1e9).toFixed(0)} GB, ` +
    `Linux ${machine.kernel}, Deno ${machine.deno}`,
  ];
  for (const experiment of report.experiments) lines.push("", ...formatExperiment(experiment));
  return lines.join("\n") + "\n";
}

function formatExperiment(experiment: BenchExperiment): string[] {
  const rows = experiment.series.map(formatSeries);
  const lines = [`## ${experiment.name}`, experiment.about, ""];
  if (rows.length > 0) {
    lines.push(...alignRows([["", "median", "unit", "spread", "range", "n", "target"], ...rows]));
  }
  if (experiment.notes.length > 0) lines.push("");
  for (const note of experiment.notes) lines.push(`- ${note}`);
  return lines;
}

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

function formatTarget({ target }: BenchSeries, median: number): string {
  if (target === undefined) return "";
  const met = target.kind === "at-least" ? median >= target.value : median <= target.value;
  return `${target.kind === "at-least" ? "≥" : "≤"} ${target.value} ${met ? "met" : "MISSED"}`;
}

/** Three digits that mean something. */
function formatValue(value: number): string {
  if (!Number.isFinite(value)) return "none";
  const digits = Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.abs(value) || 1))));
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
