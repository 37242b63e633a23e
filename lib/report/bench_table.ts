import type { BenchExperiment, BenchReport } from "./bench_result.ts";
import { headOf, sayConditions, tablesOf } from "./bench_rows.ts";

/** Formats a report as Markdown that also reads well on a terminal. */
export function formatBenchReport(report: BenchReport): string {
  const lines = headOf(report);
  for (const experiment of report.experiments) lines.push("", ...formatExperiment(experiment));
  if (report.missing.length > 0) lines.push("", "## Missing");
  for (const { name, why } of report.missing) lines.push(`- ${name}: ${why}`);
  return lines.join("\n") + "\n";
}

function formatExperiment(experiment: BenchExperiment): string[] {
  const { name, about, partial, conditions, notes, cannotShow } = experiment;
  const lines = [`## ${name}${partial === undefined ? "" : ` (partial: ${partial})`}`, about];
  const said = sayConditions(conditions);
  if (said !== "") lines.push(`Conditions: ${said}`);
  for (const { title, heading, rows } of tablesOf(experiment)) {
    if (title !== undefined) lines.push("", title);
    lines.push("", ...alignRows([heading, ...rows]));
  }
  if (notes.length + cannotShow.length > 0) lines.push("");
  for (const note of notes) lines.push(`- ${note}`);
  for (const limit of cannotShow) lines.push(`- cannot be shown here: ${limit}`);
  return lines;
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
