/** A drill's report for people. */
import type { DrillReport, DrillRun } from "../../drill/drill.ts";
import { formatBytes, formatPercentiles, formatRate, formatWholeMs } from "../../units.ts";
import { formatTakeover } from "../../host/takeover/takeover_clock.ts";
import { type Column, formatTable } from "../../report/text_table.ts";

/** Up to this many runs have a block of lines each; more runs are printed as a table. */
const BLOCKS = 3;

/** @returns Text that ends with a line break. */
export function formatDrill(report: DrillReport): string {
  const lines = [
    `QEMU ${report.qemu}, guest kernel ${report.guestKernels.join(" and ")}, ` +
    `${report.memoryMiB} MiB${report.form === "client" ? `, seed ${report.seed}` : ""}`,
  ];
  if (report.runs.length <= BLOCKS) {
    for (const run of report.runs) lines.push("", ...block(run, report));
  } else lines.push("", ...table(report));
  if (report.runs.length > 1) lines.push("", ...summary(report));
  return lines.join("\n") + "\n";
}

function block(run: DrillRun, { form }: DrillReport): string[] {
  const failed = run.checks.filter(({ held }) => !held);
  const plan = run.case === undefined ? "" : ` (${run.case.fault}, ${run.case.devices})`;
  return [
    `run ${run.run}${plan}: ${
      failed.length === 0 ? "every check held" : `${failed.length} FAILED`
    }`,
    `  syncs           ${run.syncs} (${formatRate(run.syncsPerSecond)})`,
    `  pages           ${run.pages} and ${run.zeroPages} of zeros`,
    `  sent            ${formatBytes(run.wireBytes)}`,
    `  pause           ${formatPercentiles(run.pauseP50Ms, run.pauseP99Ms)}`,
    ...(run.heldP50Ms === undefined ? [] : [
      `  frames held     ${formatPercentiles(run.heldP50Ms, run.heldP99Ms!)}`,
    ]),
    ...(run.phase === undefined ? [] : [`  phase           ${run.phase}`]),
    `  last heard      number ${run.lastCount}; transaction ${run.transaction} committed ` +
    `${formatWholeMs(run.commitAgeMs)} before the fault`,
    ...(run.outageMs === undefined ? [] : [
      form === "client"
        ? `  client          answer ${run.firstCount} after a gap of ${
          formatWholeMs(run.outageMs)
        }` +
          (run.silenceMs === undefined ? "" : `, its connection silent for ${run.silenceMs} ms`)
        : `  takeover        count ${run.firstCount}, ${
          formatWholeMs(run.outageMs)
        } after the kill`,
    ]),
    ...(run.takeover ? [`  secondary       ${formatTakeover(run.takeover)}`] : []),
    ...failures(run),
  ];
}

function failures(run: DrillRun): string[] {
  return run.checks.filter(({ held }) => !held)
    .map(({ name, detail }) => `  FAILED          ${name}: ${detail}`);
}

function table({ runs }: DrillReport): string[] {
  const ms = (value: number | undefined) => value === undefined ? "-" : value.toFixed(0);
  const rows = runs.map((run) => [
    `${run.run}`,
    run.case?.fault ?? "primary",
    run.case?.devices ?? "-",
    run.phase ?? "-",
    ms(run.outageMs),
    ms(run.silenceMs),
    `${run.syncs}`,
    run.heldP50Ms === undefined
      ? "-"
      : `${run.heldP50Ms.toFixed(1)} / ${run.heldP99Ms!.toFixed(1)}`,
    formatBytes(run.wireBytes),
    run.checks.every(({ held }) => held) ? "held" : "FAILED",
  ]);
  const columns: Column[] = [
    { title: "run", align: "right" },
    { title: "fault" },
    { title: "devices" },
    { title: "phase" },
    { title: "gap ms", align: "right" },
    { title: "silent ms", align: "right" },
    { title: "syncs", align: "right" },
    { title: "held p50/p99 ms", align: "right" },
    { title: "sent", align: "right" },
    { title: "checks" },
  ];
  return [
    ...formatTable(columns, rows),
    ...runs.flatMap((run) => failures(run).map((line) => `run ${run.run}:${line.slice(1)}`)),
  ];
}

/** Gaps by fault, and how many runs held. */
function summary({ runs, form, jobs }: DrillReport): string[] {
  const what = form === "client" ? "gap" : "takeover";
  const faults = [...new Set(runs.map((run) => run.case?.fault))];
  const held = runs.filter(({ checks }) => checks.every((check) => check.held)).length;
  const spread = (values: number[]) => {
    const sorted = values.sort((a, b) => a - b);
    const at = (share: number) => formatWholeMs(sorted[Math.ceil(share * sorted.length) - 1]);
    return `p50 ${at(0.5)}, p99 ${at(0.99)}`;
  };
  const gaps = faults.flatMap((fault) => {
    const of = runs.filter((run) => run.case?.fault === fault);
    const outages = of.flatMap(({ outageMs }) => outageMs ?? []);
    if (outages.length === 0) return [];
    const silences = of.flatMap(({ silenceMs }) => silenceMs ?? []);
    return [
      `${what}${fault === undefined ? "" : ` (${fault})`} over ${outages.length} ` +
      `${outages.length === 1 ? "run" : "runs"}${jobs === 1 ? "" : `, ${jobs} at a time`}: ` +
      spread(outages) +
      (silences.length === 0 ? "" : `; connection silent: ${spread(silences)}`),
    ];
  });
  return [...gaps, `${held} of ${runs.length} runs held`];
}
