/** One file for a browser: charts inline, tables, conditions. It loads nothing from anywhere. */
import type { BenchExperiment, BenchReport } from "./bench_result.ts";
import { type BenchTable, headOf, sayConditions, tablesOf } from "./bench_rows.ts";

const STYLE = `
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #222;
  max-width: 900px; margin: 2em auto; padding: 0 1em; background: #fff; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5em; border-bottom: 1px solid #ccc; }
nav a { margin-right: 1em; }
svg { max-width: 100%; height: auto; display: block; margin: 1em 0; border: 1px solid #eee; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5em 0 1em; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid #e6e6e6; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid #888; }
.missed { color: #b00020; font-weight: 600; } .met { color: #00704a; }
.partial { background: #fff3cd; padding: .3em .6em; }
.conditions { color: #555; } caption { text-align: left; font-weight: 600; padding: .3em 0; }
`;

/**
 * Formats a report as HTML.
 *
 * @param charts SVG texts of each experiment, by the experiment's name.
 */
export function formatBenchHtml(
  report: BenchReport,
  charts: ReadonlyMap<string, readonly string[]>,
): string {
  const { experiments, missing } = report;
  const links = experiments.map(({ name }) => `<a href="#${escape(name)}">${escape(name)}</a>`);
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>kemari bench, ${escape(report.startedAt.slice(0, 10))}</title>
<style>${STYLE}</style>
<h1>kemari bench</h1>
${headOf(report).map((line) => `<p class="conditions">${escape(line)}</p>`).join("\n")}
<nav>${links.join("\n")}</nav>
${experiments.map((each) => section(each, charts.get(each.name) ?? [])).join("\n")}
${missing.length === 0 ? "" : `<h2>Missing</h2>\n${list(missing.map(sayMissing))}`}
</html>
`;
}

function sayMissing({ name, why }: { name: string; why: string }): string {
  return `${name}: ${why}`;
}

function section(experiment: BenchExperiment, charts: readonly string[]): string {
  const { name, about, partial, conditions, notes, cannotShow } = experiment;
  const said = sayConditions(conditions);
  const parts = [
    `<h2 id="${escape(name)}">${escape(name)}</h2>`,
    `<p>${escape(about)}</p>`,
    partial === undefined ? "" : `<p class="partial">Partial: ${escape(partial)}</p>`,
    said === "" ? "" : `<p class="conditions">Conditions: ${escape(said)}</p>`,
    ...charts.map((svg) => svg.slice(svg.indexOf("<svg"))),
    ...tablesOf(experiment).map(table),
    list(notes),
    cannotShow.length === 0 ? "" : `<p>Cannot be shown here:</p>\n${list(cannotShow)}`,
  ];
  return parts.filter((part) => part !== "").join("\n");
}

function table({ title, heading, rows }: BenchTable): string {
  const row = (cells: readonly string[], tag: string) =>
    `<tr>${
      cells.map((cell) => `<${tag}${judgement(cell)}>${escape(cell)}</${tag}>`).join("")
    }</tr>`;
  const caption = title === undefined ? "" : `<caption>${escape(title)}</caption>`;
  return `<div class="wide"><table>${caption}<thead>${row(heading, "th")}</thead>
<tbody>${rows.map((cells) => row(cells, "td")).join("\n")}</tbody></table></div>`;
}

function judgement(cell: string): string {
  if (cell.endsWith(" MISSED")) return ' class="missed"';
  return cell.endsWith(" met") ? ' class="met"' : "";
}

function list(items: readonly string[]): string {
  if (items.length === 0) return "";
  return `<ul>\n${items.map((item) => `<li>${escape(item)}</li>`).join("\n")}\n</ul>`;
}

const ENTITIES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
};

function escape(text: string): string {
  return text.replaceAll(/[&<>"]/g, (character) => ENTITIES[character]);
}
