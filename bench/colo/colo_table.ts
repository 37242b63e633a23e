/**
 * Every QEMU × accelerator × mode that `kemari protect` can do, on a guest that needs no kernel: a
 * boot sector that changes 96 pages nine times a second. Stock Linux does not run under every KVM
 * that these experiments meet.
 *
 * Under KVM the timer that wakes such a guest is QEMU's own (`kernel-irqchip=split`): the kernel's
 * timer is set again at every resume, so checkpoints that come more often than its ticks stop the
 * guest.
 */
import { ensureQemu, type QemuSeries } from "../../lib/lab/provision/qemu.ts";
import { dirtyingBootSector } from "../../lib/lab/recording/boot_sector.ts";
import type { Vm } from "../../lib/lab/vms/vm.ts";
import { KemariError } from "../../lib/errors.ts";
import type { BenchGrid } from "../../lib/report/bench_result.ts";
import { quantile } from "../../lib/report/bench_statistics.ts";
import type { BenchContext } from "../bench_context.ts";
import { WorkFolder } from "../../lib/lab/program/work_folder.ts";
import { type KeptMemory, measureMemory } from "./colo_round.ts";
import { protectedVm } from "./colo_vm.ts";
import { until } from "../../lib/lab/program/until.ts";

/** The QEMUs of the table. */
const QEMUS: readonly QemuSeries[] = ["5.2", "7.2", "10.0", "11.1"];
const ACCELERATORS = ["kvm", "tcg"] as const;
const MODES = ["colo", "snapshot"] as const;

type Accelerator = typeof ACCELERATORS[number];
type Mode = typeof MODES[number];

/** A cell of the table. */
interface TableCell {
  readonly version: QemuSeries;
  readonly accelerator: Accelerator;
  readonly mode: Mode;
}

/** How a cell is measured. */
interface CellSettings {
  /** The number of checkpoints to make, or fewer if `seconds` end first. */
  readonly count: number;
  readonly seconds: number;
  readonly kemari: readonly string[];
  readonly signal: AbortSignal;
}

const COUNT = {
  quick: { colo: 2000, snapshot: 100 },
  usual: { colo: 5000, snapshot: 600 },
};
const SECONDS = { quick: 4, usual: 20 };
/** Fewer do not show what QEMU keeps for each: its allocator grows in steps of a megabyte. */
const ENOUGH_FOR_MEMORY = 500;
const ROUNDS = { quick: 1, usual: 2 };
const MEMORY_MIB = 64;
const DISK_BYTES = 1 << 20;
const WARM_UP_CHECKPOINTS = 300;
const WARM_UP_SECONDS = 3;
const BOOT_MS = 60_000;

/** The results, as a table for each quantity, and why cells are empty. */
export interface ColoTable {
  readonly grids: readonly BenchGrid[];
  readonly notes: readonly string[];
}

/**
 * Measures every cell; a cell that cannot be measured is left empty.
 *
 * @param versions The QEMUs; all of them by default.
 */
export async function measureTable(
  context: BenchContext,
  kemari: readonly string[],
  versions = QEMUS,
): Promise<ColoTable> {
  const { quick, signal } = context;
  const size = quick ? "quick" : "usual";
  const cells = versions.flatMap((version) =>
    ACCELERATORS.flatMap((accelerator) => MODES.map((mode) => ({ version, accelerator, mode })))
  );
  const measured = new Map<TableCell, KeptMemory[]>(cells.map((cell) => [cell, []]));
  const reasons = new Map<string, string>();
  const rounds = context.rounds ?? ROUNDS[size];
  for (let round = 0; round < rounds; round++) {
    for (const [index, cell] of cells.entries()) {
      const name = nameOf(cell);
      context.progress("colo", round * cells.length + index, rounds * cells.length, name);
      if (reasons.has(name)) continue;
      try {
        const count = COUNT[size][cell.mode];
        const settings = { count, seconds: context.seconds ?? SECONDS[size], kemari, signal };
        measured.get(cell)!.push(await measureCell(cell, settings));
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof KemariError)) throw error;
        reasons.set(name, reasonOf(error));
      }
    }
  }
  return {
    grids: gridsOf(versions, measured),
    notes: [
      "the table of QEMUs: a boot sector that changes 96 pages nine times a second, 64 MB, " +
      "--sync-interval 1ms; under KVM with kernel-irqchip=split; what QEMU keeps is told of " +
      `${ENOUGH_FOR_MEMORY} checkpoints or more`,
      ...[...reasons].map(([name, reason]) => `${name}: none, ${reason}`),
    ],
  };
}

/** @throws {KemariError} This QEMU cannot be had, or protected in this way. */
async function measureCell(cell: TableCell, settings: CellSettings): Promise<KeptMemory> {
  const { accelerator, mode, version } = cell;
  const { signal, kemari } = settings;
  await using stack = new AsyncDisposableStack();
  const qemu = await ensureQemu(version, { signal });
  const image = `${stack.use(new WorkFolder()).path}/boot.img`;
  await Deno.writeFile(image, dirtyingBootSector());
  await Deno.truncate(image, DISK_BYTES);
  const kept = await protectedVm({
    qemu: qemu.program,
    memoryMiB: MEMORY_MIB,
    machine: accelerator === "kvm" ? "pc,kernel-irqchip=split" : "pc",
    accelerator,
    devices: ["-drive", `file=${image},format=raw,if=none,id=boot`]
      .concat("-device", "ide-hd,drive=boot"),
    ready: (vm) => saysItsFirstDot(vm, signal),
    link: "unix",
    intervalMs: 1,
    kemari,
    mode,
    commit: "async",
    signal,
  }, stack);
  await measureMemory(kept, WARM_UP_CHECKPOINTS, WARM_UP_SECONDS, signal);
  return await measureMemory(kept, settings.count, settings.seconds, signal);
}

function saysItsFirstDot(vm: Vm, signal: AbortSignal): Promise<void> {
  return until(() => vm.console.lastWords.includes("."), "the guest's first dot", {
    signal,
    limitMs: BOOT_MS,
  });
}

function gridsOf(
  versions: readonly QemuSeries[],
  measured: ReadonlyMap<TableCell, readonly KeptMemory[]>,
): BenchGrid[] {
  const rows = versions.flatMap((version) =>
    ACCELERATORS.map((accelerator) => ({ version, accelerator }))
  );
  const all = [...measured];
  const grid = (name: string, unit: string, of: (kept: KeptMemory) => number): BenchGrid => ({
    name: `${name}, by QEMU`,
    unit,
    rows: rows.map(({ version, accelerator }) => `QEMU ${version}, ${accelerator.toUpperCase()}`),
    columns: ["COLO", "snapshots"],
    cells: rows.map(({ version, accelerator }) =>
      MODES.map((mode) =>
        all.filter(([cell]) =>
          cell.version === version && cell.accelerator === accelerator && cell.mode === mode
        ).flatMap(([, kept]) => kept.map(of)).filter(Number.isFinite)
      )
    ),
  });
  return [
    grid("checkpoints", "1/s", ({ perSecond }) => perSecond),
    grid("guest stopped, p50", "ms", ({ stoppedMs }) => quantile(stoppedMs, 0.5)),
    grid("guest stopped, p99", "ms", ({ stoppedMs }) => quantile(stoppedMs, 0.99)),
    grid(
      "kept by QEMU for each",
      "kB",
      ({ keptBytes, count }) => count < ENOUGH_FOR_MEMORY ? NaN : keptBytes / 1e3,
    ),
  ];
}

function nameOf({ version, accelerator, mode }: TableCell): string {
  const how = mode === "colo" ? "COLO" : "snapshots";
  return `QEMU ${version}, ${accelerator.toUpperCase()}, ${how}`;
}

/** kemari's reason, if it gave any. */
function reasonOf(error: KemariError): string {
  return /^kemari: (.*)$/m.exec(error.message)?.[1] ?? error.message.split("\n")[0];
}
