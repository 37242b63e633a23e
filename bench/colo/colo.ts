/**
 * `kemari bench colo`: checkpoints per second of an idle guest, triggered back to back, against
 * QEMU's own COLO pair at its best; how long each stops the guest; how much memory QEMU keeps for
 * each; and the same for every QEMU, accelerator and mode.
 *
 * kemari's rows are QEMU 11.1 with `kemari protect`, or with `exec:kemari send`, and a `kemari
 * recv` of its own. QEMU's are a second QEMU with `-incoming` and `x-colo` on both sides, as
 * docs/system/qemu-colo.rst has it, without the parts for disks and network. Each round measures
 * every row for some seconds on VMs of its own, and yields one ratio. On both sides of the
 * comparison, syncs and the time the guest stands still are measured by QEMU's own STOP and RESUME
 * events.
 *
 * Results (2 cores, TCG, 512 MB idle guest):
 * - QEMU's pair makes 11 checkpoints a second over TCP with default settings, and 300–380 if the
 *   route acknowledges at once (`quick_acks.ts`): by default each takes 87 ms, of which Nagle's
 *   algorithm waits 85 for delayed ACKs. Over a Unix socket the pair makes 280–360. An earlier form
 *   of this experiment compared with TCP as it comes, and reported 40×.
 * - `suppress-vmdesc` gives the pair a tenth to a half more checkpoints, if set on both sides. If
 *   only the primary has it, the secondary waits for a description that does not come; if only the
 *   secondary has it, there is no checkpoint at all.
 * - Waiting for RESUME before the next trigger gives the most checkpoints: a trigger during a
 *   checkpoint is lost now and then (QEMU's pair then waits for its timer), and a flood of triggers
 *   slows the pair.
 * - QEMU's description (vmdesc) takes most of the pause: if answers come at once, a `pc` stands
 *   still for 0.2 ms without it and 0.8 with it; with virtio-blk and virtio-net, for 1.7 and 2.3.
 *   QEMU then makes 1,480 and 690, 410 and 320 checkpoints a second: kemari cannot make more.
 * - A fifth of the sender's CPU time went into finding each checkpoint's device sections, while the
 *   VM stood still. Checkpoints nearly always have the same layout: comparing headers and footers
 *   with those of the last checkpoint (`device_layout.ts`), and writing to the peer only when a
 *   small checkpoint has been read, raised 1236 checkpoints a second to 1412, and shortened the
 *   pause from 0.30 ms to 0.21, of which QEMU alone takes 0.20 (alternating with the pair, quiet
 *   machine).
 */
import { ensureGuest } from "../../lib/lab/guest/guest.ts";
import { ensureQemu } from "../../lib/lab/provision/qemu.ts";
import { endAllVms, leaveSignalsToCaller } from "../../lib/lab/vms/vm_cleanup.ts";
import type { BenchExperiment, BenchSeries } from "../../lib/report/bench_result.ts";
import type { BenchContext } from "../bench_context.ts";
import { kemariProgram } from "../../lib/lab/program/kemari_program.ts";
import { QuickLoopback } from "../../lib/lab/network/quick_acks.ts";
import { atExit } from "../../lib/lab/program/work_folder.ts";
import { measureKeptMemory } from "./colo_memory.ts";
import { ColoRates, VIRTIO_DEVICES } from "./colo_rates.ts";
import { BACK_TO_BACK_MS } from "./colo_round.ts";
import { type ColoTable, measureTable } from "./colo_table.ts";
import type { ColoSetup } from "./colo_vm.ts";

const MEMORY_MIB = 512;

/** @throws {QemuError} QEMU 11.1 cannot be had, or does not enter COLO. */
export async function benchColo(context: BenchContext): Promise<BenchExperiment> {
  const { signal } = context;
  leaveSignalsToCaller();
  await using stack = new AsyncDisposableStack();
  stack.defer(atExit(endAllVms));
  const qemu = await ensureQemu("11.1", { signal });
  const guest = await ensureGuest({ signal });
  const { command, about } = kemariProgram();
  const loopback = await QuickLoopback.make();
  const isQuick = typeof loopback !== "string";
  if (isQuick) stack.use(loopback);
  const setup: ColoSetup = {
    qemu: qemu.program,
    guest,
    memoryMiB: MEMORY_MIB,
    devices: [],
    link: "tcp",
    prefix: isQuick ? loopback.prefix : [],
    intervalMs: BACK_TO_BACK_MS,
    kemari: command,
    signal,
  };
  const rates = new ColoRates(context, setup, isQuick);
  let memory: readonly BenchSeries[] = [];
  let table: ColoTable = { grids: [], notes: [] };
  const report = (): BenchExperiment => ({
    name: "colo",
    about: "COLO checkpoints of an idle guest, triggered back to back over QMP, and what they cost",
    conditions: {
      qemu: qemu.fullVersion,
      accelerator: "TCG, but for the table of QEMUs",
      guest: `${MEMORY_MIB} MB, Linux ${guest.kernelVersion}`,
      link: isQuick ? "loopback with quick acknowledgements" : "loopback",
    },
    series: [...rates.series, ...memory],
    grids: [...rates.grids, ...table.grids],
    notes: [
      `kemari is ${about}; QEMU ${qemu.fullVersion}; guest Linux ${guest.kernelVersion}`,
      isQuick
        ? "kemari, and the pair over TCP with quick ACKs, run in a network namespace whose routes " +
          "have quickack 1"
        : "the pair over TCP is measured as it comes only, so that a Unix socket is its best: " +
          `there is no network of our own, ${loopback}`,
      ...rates.notes,
      ...table.notes,
    ],
    cannotShow: [
      "rates of a host with KVM: under TCG the guest and QEMU's own part of a checkpoint are slow",
      "two hosts: guest, QEMU and both ends share the cores of one machine",
    ],
  });
  await rates.measure((partial) => context.keep({ ...report(), partial }));
  memory = await measureKeptMemory(context, { ...setup, prefix: [], devices: VIRTIO_DEVICES });
  context.keep({ ...report(), partial: "without the table of QEMUs" });
  table = await measureTable(context, command);
  return report();
}
