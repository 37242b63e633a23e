import type { Comparison, Difference } from "./bench_compare.ts";
import { formatValue } from "./bench_rows.ts";
import { type Column, formatTable } from "./text_table.ts";

const COLUMNS: readonly Column[] = [
  { title: "experiment" },
  { title: "quantity" },
  { title: "before", align: "right" },
  { title: "after", align: "right" },
  { title: "unit" },
  { title: "change", align: "right" },
  { title: "" },
];

/** Formats a comparison for a terminal: the changes, and how many quantities did not change. */
export function formatComparison(comparison: Comparison): string {
  const { differences, onlyBefore, onlyAfter } = comparison;
  const changed = differences.filter(({ verdict }) => verdict === "higher" || verdict === "lower");
  const few = differences.filter(({ verdict }) => verdict === "too few samples");
  const lines = changed.length === 0 ? [] : [...formatTable(COLUMNS, changed.map(row)), ""];
  lines.push(
    `${changed.length} of ${differences.length} quantities changed beyond noise` +
      (changed.length === 0 ? "" : "; by chance alone up to one in twenty would"),
  );
  if (few.length > 0) {
    lines.push(
      `${few.length} have too few samples to tell a change (4 a side, or 6 points of a curve)`,
    );
  }
  if (onlyBefore.length > 0) lines.push(`only before: ${onlyBefore.join("; ")}`);
  if (onlyAfter.length > 0) lines.push(`only after: ${onlyAfter.join("; ")}`);
  return lines.join("\n") + "\n";
}

function row({ experiment, name, before, after, unit, ratio, verdict }: Difference): string[] {
  const change = (ratio - 1) * 100;
  return [
    experiment,
    name,
    formatValue(before),
    formatValue(after),
    unit,
    `${change > 0 ? "+" : ""}${change.toFixed(1)} %`,
    verdict,
  ];
}
