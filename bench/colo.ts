/**
 * `kemari bench colo`: checkpoints per second of an idle guest, triggered back to back, against
 * QEMU's own COLO pair on the same guest in the same run.
 *
 * kemari's row is QEMU 11.1 → `exec:kemari send` → loopback TCP → `kemari recv` in a process of its
 * own. QEMU's is a second QEMU with `-incoming tcp:` and `x-colo` on both sides, as
 * docs/system/qemu-colo.rst has it, without the parts for disks and network. One round measures
 * each for some seconds on VMs of its own, and yields one ratio. Syncs are counted by QEMU's own
 * STOP and RESUME events on both sides of the comparison, and so is the time the guest stands still.
 *
 * Learned while building it (2 cores, TCG, 512 MB idle guest):
 * - QEMU's pair makes 11 checkpoints a second over TCP and 200–270 over a Unix socket, each
 *   standing still for 86 ms against 2.5: the difference is Nagle's algorithm meeting delayed ACKs
 *   twice a checkpoint. Both are measured; the target is about TCP, which is what two hosts have.
 * - kemari switches Nagle off, and makes 400–525 over either on a quiet machine. It is bound by CPU
 *   time and QEMU's TCP pair by waiting, so whatever else runs lowers the ratio: 250 syncs a second,
 *   22×, beside two busy processes.
 * - Waiting for RESUME before the next trigger gives the most: a trigger during a checkpoint
 *   is lost now and then (QEMU's pair then waits for its timer), and a flood of them slows it.
 * - Of some 2 ms a checkpoint the guest stands still for 1.0–1.4 and runs for 0.8. The sender takes
 *   0.28 ms of CPU time and the receiver 0.20; the rest is QEMU's. The sender wakes up for REQUEST,
 *   VMSTATE_SEND, the state, and the ACK, the receiver for BEGIN and for the rest, unless
 *   neighbours happen to arrive together.
 */
import { ensureGuest } from "../fixtures/guest/guest.ts";
import { ensureQemu } from "../fixtures/provision/qemu.ts";
import { endAllVms, leaveSignalsToCaller } from "../fixtures/vm_cleanup.ts";
import type { BenchExperiment, BenchSeries } from "../lib/report/bench_result.ts";
import { pairedRatios, quantile } from "../lib/report/bench_statistics.ts";
import type { BenchContext } from "./bench_context.ts";
import { type ColoSetup, type KemariRound, kemariRound, qemuRound } from "./colo_round.ts";
import { kemariProgram } from "./kemari_program.ts";
import { atExit } from "./work_folder.ts";

const ROUNDS = 5;
const SECONDS = 5;
const QUICK_ROUNDS = 1;
const QUICK_SECONDS = 1;
const TARGET_RATIO = 40;

const IDLE_DEVICES = ["-nic", "none"];
const RICH_DEVICES = ["-blockdev", "driver=null-co,node-name=disk,size=67108864,read-zeroes=on"]
  .concat("-device", "virtio-blk-pci,drive=disk")
  .concat("-netdev", "hubport,id=net,hubid=0", "-device", "virtio-net-pci,netdev=net,romfile=");

/** @throws {QemuError} QEMU 11.1 cannot be had, or does not enter COLO. */
export async function benchColo(context: BenchContext): Promise<BenchExperiment> {
  const { quick, signal } = context;
  leaveSignalsToCaller();
  atExit(endAllVms);
  const qemu = await ensureQemu("11.1", { signal });
  const guest = await ensureGuest({ signal });
  const { command, about } = kemariProgram();
  const idle: ColoSetup = {
    qemu: qemu.program,
    guest,
    memoryMiB: 512,
    devices: IDLE_DEVICES,
    link: "tcp",
    seconds: context.seconds ?? (quick ? QUICK_SECONDS : SECONDS),
    signal,
  };
  const rich = { ...idle, devices: RICH_DEVICES };
  const asynchronous: KemariRound[] = [];
  const synchronous: KemariRound[] = [];
  const devices: KemariRound[] = [];
  const pair: { syncsPerSecond: number; stoppedMs: readonly number[] }[] = [];
  const unixPair: typeof pair = [];
  const steps: (() => Promise<unknown>)[] = [
    async () => asynchronous.push(await kemariRound(idle, command, "async")),
    async () => pair.push(await qemuRound(idle)),
    async () => synchronous.push(await kemariRound(idle, command, "sync")),
    async () => unixPair.push(await qemuRound({ ...idle, link: "unix" })),
    async () => devices.push(await kemariRound(rich, command, "async")),
  ];
  const rounds = context.rounds ?? (quick ? QUICK_ROUNDS : ROUNDS);
  for (let round = 0; round < rounds; round++) {
    for (let turn = 0; turn < steps.length; turn++) {
      context.say(`colo: round ${round + 1} of ${rounds}, ${turn + 1} of ${steps.length}`);
      signal.throwIfAborted();
      await steps[(turn + round) % steps.length]();
    }
  }
  const rate = (of: readonly { syncsPerSecond: number }[]) =>
    of.map(({ syncsPerSecond }) => syncsPerSecond);
  return {
    name: "colo",
    about: "COLO checkpoints of an idle 512 MB guest, triggered back to back over QMP, TCG",
    conditions: {
      qemu: qemu.fullVersion,
      accelerator: "TCG",
      guest: `512 MB, Linux ${guest.kernelVersion}`,
    },
    series: [
      { name: "kemari, async commit", unit: "syncs/s", samples: rate(asynchronous) },
      { name: "kemari, sync commit", unit: "syncs/s", samples: rate(synchronous) },
      { name: "kemari, async, virtio-blk + virtio-net", unit: "syncs/s", samples: rate(devices) },
      { name: "QEMU's pair, TCP", unit: "syncs/s", samples: rate(pair) },
      { name: "QEMU's pair, Unix socket", unit: "syncs/s", samples: rate(unixPair) },
      {
        name: "kemari async / QEMU's pair, TCP",
        unit: "×",
        samples: pairedRatios(rate(asynchronous), rate(pair)),
        target: { kind: "at-least", value: TARGET_RATIO },
      },
      {
        name: "kemari async (TCP) / QEMU's pair, Unix",
        unit: "×",
        samples: pairedRatios(rate(asynchronous), rate(unixPair)),
      },
      ...kemariSeries("async", asynchronous),
      ...kemariSeries("sync", synchronous),
      ...kemariSeries("devices", devices),
      ...stoppedSeries("QEMU's pair, TCP", pair),
      ...stoppedSeries("QEMU's pair, Unix", unixPair),
    ],
    notes: [
      `kemari is ${about}; QEMU ${qemu.fullVersion}; guest Linux ${guest.kernelVersion}`,
      "guest stopped: QEMU's STOP to RESUME. Its parts as kemari send sees them: " +
      "QEMU sends (VMSTATE_SEND read → last byte read), reply (→ VMSTATE_LOADED written, with " +
      "sync the round trip is in it), round trip (COMMIT → ACK)",
      "phases are of the session since its start, first pass included in the round trip's p99",
    ],
    cannotShow: [
      "rates of a host with KVM: under TCG the guest and QEMU's own part of a checkpoint are slow",
      "two hosts: guest, QEMU and both ends share the cores of one machine",
    ],
  };
}

function kemariSeries(name: string, rounds: readonly KemariRound[]): BenchSeries[] {
  const of = (what: string, value: (round: KemariRound) => number): BenchSeries => ({
    name: `${name}: ${what}`,
    unit: "ms",
    samples: rounds.map(value),
  });
  return [
    ...stoppedSeries(name, rounds),
    of("QEMU sends, p50", ({ sender }) => sender.receiving.p50),
    of("QEMU sends, p99", ({ sender }) => sender.receiving.p99),
    of("reply, p50", ({ sender }) => sender.pause.p50 - sender.receiving.p50),
    of("round trip, p50", ({ sender }) => sender.roundTrip.p50),
    of("round trip, p99", ({ sender }) => sender.roundTrip.p99),
    of("guest runs between, p50", ({ runningMs }) => quantile(runningMs, 0.5)),
    of("send's CPU per sync", ({ senderCpuMs }) => senderCpuMs),
    of("recv's CPU per sync", ({ receiverCpuMs }) => receiverCpuMs),
  ];
}

function stoppedSeries(
  name: string,
  rounds: readonly { stoppedMs: readonly number[] }[],
): BenchSeries[] {
  return [0.5, 0.99].map((share) => ({
    name: `${name}: guest stopped, p${share * 100}`,
    unit: "ms",
    samples: rounds.map(({ stoppedMs }) => quantile(stoppedMs, share)),
  }));
}
