/** `kemari doctor` for people. */
import { formatBytes } from "../../units.ts";
import type { MigrationSupport } from "../../qmp/migration_support.ts";
import { formatPairs } from "../../report/text_table.ts";
import type { Diagnosis } from "./diagnosis.ts";

type Pair = readonly [string, string];

/** @returns Text that ends with a line break. */
export function formatDoctor(diagnosis: Diagnosis): string {
  const { host, qemu, vm, protectable, mode, reason, todo } = diagnosis;
  const lines = ["host"];
  const width = Math.max(...host.map(({ name }) => name.length));
  for (const { name, state, found, neededFor } of host) {
    // Only a missing part needs a reason.
    const why = state === "ok" ? "" : ` (needed for ${neededFor})`;
    lines.push(`  ${state.padEnd(7)}  ${name.padEnd(width)}  ${found}${why}`);
  }
  if (qemu !== null) {
    const pairs: Pair[] = [["program", `${qemu.program} (${qemu.source})`]];
    lines.push("", "QEMU", ...block([...pairs, ...supportPairs(qemu.support)]));
  }
  if (vm !== null) {
    const pairs: Pair[] = [["socket", vm.socket]];
    if (vm.name !== null) pairs.push(["name", vm.name]);
    if (vm.machine !== null) pairs.push(["machine", vm.machine]);
    if (vm.cpus !== null) pairs.push(["vCPUs", String(vm.cpus)]);
    if (vm.memoryBytes !== null) pairs.push(["memory", formatBytes(vm.memoryBytes)]);
    pairs.push(["state", vm.support.runState], ...supportPairs(vm.support));
    for (const blocker of vm.support.blockers) pairs.push(["blocker", blocker]);
    lines.push("", "VM", ...block(pairs));
  }
  lines.push("", protectable ? `can be protected, mode ${mode}` : "cannot be protected");
  lines.push(`  because: ${reason}`, ...todo.map((step) => `  next: ${step}`));
  return lines.join("\n") + "\n";
}

function supportPairs(support: MigrationSupport): Pair[] {
  return [
    ["version", support.version.text],
    ["accelerator", support.accelerator],
    ["COLO", `${support.colo ? "yes" : "no"}: ${support.coloReason}`],
    ["warm standby", `${support.warmStandby ? "yes" : "no"}: ${support.warmStandbyReason}`],
    ["return path", support.returnPath ? "yes" : "no"],
  ];
}

function block(pairs: readonly Pair[]): string[] {
  return formatPairs(pairs).map((line) => `  ${line}`);
}
