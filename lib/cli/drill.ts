import { drill, type DrillReport } from "../../bench/drill.ts";
import { EXIT } from "../errors.ts";
import { formatBytes } from "../host/end_status.ts";
import type { CommandContext } from "./context.ts";
import type { DrillOptions } from "./options.ts";

export async function run(options: DrillOptions, context: CommandContext): Promise<number> {
  const narrate = (line: string) => {
    if (!options.quiet) context.status.print(`drill: ${line}\n`);
  };
  const fillMiB = Math.min(64, Math.floor(options.memoryMiB / 4));
  const settings = { ...options, fillMiB, syncIntervalMs: 20 };
  const report = await drill(settings, narrate, context.signal);
  context.writeOut(options.json ? JSON.stringify(report) + "\n" : table(report));
  return report.held ? EXIT.done : EXIT.bytes;
}

/** The report for people. */
function table(report: DrillReport): string {
  const lines = [
    `QEMU ${report.qemu}, guest kernel ${report.guestKernel}, ${report.memoryMiB} MiB`,
  ];
  for (const run of report.runs) {
    const failed = run.checks.filter(({ held }) => !held);
    lines.push(
      "",
      `run ${run.run}: ${failed.length === 0 ? "every check held" : `${failed.length} FAILED`}`,
      `  syncs           ${run.syncs} (${run.syncsPerSecond.toFixed(1)}/s)`,
      `  pages           ${run.pages} and ${run.zeroPages} of zeros`,
      `  sent            ${formatBytes(run.wireBytes)}`,
      `  pause           p50 ${run.pauseP50Ms.toFixed(2)} ms, p99 ${run.pauseP99Ms.toFixed(2)} ms`,
      ...(run.heldP50Ms === undefined ? [] : [
        `  frames held     p50 ${run.heldP50Ms.toFixed(2)} ms, p99 ${run.heldP99Ms!.toFixed(2)} ms`,
      ]),
      `  last heard      number ${run.lastCount}; transaction ${run.transaction} committed ` +
        `${run.commitAgeMs.toFixed(0)} ms before the kill`,
      report.form === "client"
        ? `  client          answer ${run.firstCount} after a gap of ${run.outageMs.toFixed(0)} ms`
        : `  takeover        count ${run.firstCount}, ${run.outageMs.toFixed(0)} ms after the kill`,
    );
    for (const { name, detail } of failed) lines.push(`  FAILED          ${name}: ${detail}`);
  }
  if (report.runs.length > 1) {
    const outages = report.runs.map(({ outageMs }) => outageMs).sort((a, b) => a - b);
    const at = (share: number) => outages[Math.ceil(share * outages.length) - 1].toFixed(0);
    lines.push(
      "",
      `${report.form === "client" ? "gap" : "takeover"} over ${outages.length} runs: p50 ${
        at(0.5)
      } ms, p99 ${at(0.99)} ms`,
    );
  }
  return lines.join("\n") + "\n";
}
