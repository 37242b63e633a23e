/**
 * `kemari bench colo --key`: what a link's encryption costs a checkpoint. Checkpoints back to back of
 * an idle guest, with a key and without by turns, for `--commit async` and `sync`.
 */
import { makeKeyFile } from "../../lib/host/keygen.ts";
import { ensureGuest } from "../../lib/lab/guest/guest.ts";
import { QuickLoopback } from "../../lib/lab/network/quick_acks.ts";
import { kemariProgram } from "../../lib/lab/program/kemari_program.ts";
import { atExit, WorkFolder } from "../../lib/lab/program/work_folder.ts";
import { ensureQemu } from "../../lib/lab/provision/qemu.ts";
import { endAllVms, leaveSignalsToCaller } from "../../lib/lab/vms/vm_cleanup.ts";
import type { BenchExperiment, BenchSeries } from "../../lib/report/bench_result.ts";
import { pairedRatios, quantile } from "../../lib/report/bench_statistics.ts";
import type { BenchContext } from "../bench_context.ts";
import { SHAPES } from "../guest_lab.ts";
import { BACK_TO_BACK_MS, type KemariRound, protectRound } from "./colo_round.ts";
import type { ColoSetup } from "./colo_vm.ts";

const MEMORY_MIB = 512;
const ROUNDS = 5;
const SECONDS = 5;
const QUICK_SECONDS = 1;
/** Checkpoints a second with a key, of what there are without; and pauses the other way. */
const TARGET_RATIO = 0.95;
/** What a round trip may take more with a key. */
const TARGET_MORE_US = 30;

interface Way {
  readonly commit: "async" | "sync";
  readonly security: readonly string[];
  readonly rounds: KemariRound[];
}

/** @throws {QemuError} QEMU 11.1 cannot be had, or does not enter COLO. */
export async function benchColoKey(context: BenchContext): Promise<BenchExperiment> {
  const { signal } = context;
  leaveSignalsToCaller();
  await using stack = new AsyncDisposableStack();
  stack.defer(atExit(endAllVms));
  const qemu = await ensureQemu("11.1", { signal });
  const guest = await ensureGuest({ signal });
  const { command, about } = kemariProgram();
  const key = `${stack.use(new WorkFolder()).path}/key`;
  makeKeyFile(key, "bench");
  const [rate] = context.links ?? ["10G" as const];
  const loopback = await QuickLoopback.make();
  const isOurs = typeof loopback !== "string";
  if (isOurs) {
    stack.use(loopback);
    if (rate !== "none") await loopback.limit("tbf", ...SHAPES[rate]);
  }
  const setup: ColoSetup = {
    qemu: qemu.program,
    guest,
    memoryMiB: MEMORY_MIB,
    devices: ["-nic", "none"],
    link: "tcp",
    prefix: isOurs ? loopback.prefix : [],
    intervalMs: BACK_TO_BACK_MS,
    kemari: command,
    signal,
  };
  const ways: Way[] = (["async", "sync"] as const).flatMap((commit) =>
    [[], ["--key", key]].map((security) => ({ commit, security, rounds: [] }))
  );
  const report = () => ({
    name: "colo",
    about: "COLO checkpoints of an idle guest back to back, with a key and without by turns",
    conditions: {
      qemu: qemu.fullVersion,
      accelerator: "TCG",
      guest: `${MEMORY_MIB} MB, Linux ${guest.kernelVersion}`,
      link: isOurs
        ? `loopback, ${rate === "none" ? "not limited" : rate}`
        : "loopback, not limited",
    },
    series: [...costs("async", ways[0], ways[1]), ...costs("sync", ways[2], ways[3])],
    notes: [
      `kemari is ${about}; QEMU ${qemu.fullVersion}; guest Linux ${guest.kernelVersion}`,
      "round trip: COMMIT → ACK, as the sender measures it; pause: QEMU's STOP to RESUME",
    ],
    cannotShow: ["two hosts: guest, QEMU and both ends share the cores of one machine"],
  });
  const rounds = context.rounds ?? (context.quick ? 1 : ROUNDS);
  const seconds = context.seconds ?? (context.quick ? QUICK_SECONDS : SECONDS);
  for (let step = 0; step < rounds * ways.length; step++) {
    signal.throwIfAborted();
    const round = Math.floor(step / ways.length);
    // A pair's two stand next to each other, and begin by turns.
    const way = ways[round % 2 === 0 ? step % ways.length : ways.length - 1 - step % ways.length];
    const name = `${way.commit}, ${way.security.length > 0 ? "with a key" : "plain"}`;
    context.progress("colo", step, rounds * ways.length, `round ${round + 1}, ${name}`);
    way.rounds.push(await protectRound({ ...setup, ...way, mode: "colo" }, seconds));
    if (step % ways.length === ways.length - 1) {
      context.keep({ ...report(), partial: `${round + 1} of ${rounds} rounds` });
    }
  }
  return report();
}

function costs(commit: string, plain: Way, encrypted: Way): BenchSeries[] {
  const of = (way: Way, value: (round: KemariRound) => number) => way.rounds.map(value);
  const both = (name: string, unit: string, value: (round: KemariRound) => number) => [
    { name: `${commit}, plain: ${name}`, unit, samples: of(plain, value) },
    { name: `${commit}, with a key: ${name}`, unit, samples: of(encrypted, value) },
  ];
  const ratio = (value: (round: KemariRound) => number) =>
    pairedRatios(of(encrypted, value), of(plain, value));
  const rate = ({ perSecond }: KemariRound) => perSecond;
  const pause = (share: number) => ({ stoppedMs }: KemariRound) => quantile(stoppedMs, share);
  const trip = ({ sender }: KemariRound) => sender.roundTrip.p50 * 1000;
  const megabytes = ({ sender }: KemariRound) => sender.wireBytes / 1e6;
  return [
    {
      name: `${commit}: checkpoints a second, with a key / plain`,
      unit: "×",
      samples: ratio(rate),
      target: { kind: "at-least", value: TARGET_RATIO },
    },
    ...[0.5, 0.99].map((share): BenchSeries => ({
      name: `${commit}: guest stopped p${share * 100}, plain / with a key`,
      unit: "×",
      samples: ratio(pause(share)).map((more) => 1 / more),
      ...(share === 0.5 ? { target: { kind: "at-least", value: TARGET_RATIO } } : {}),
    })),
    {
      name: `${commit}: round trip p50, with a key − plain`,
      unit: "µs",
      samples: of(encrypted, trip).map((us, i) => us - trip(plain.rounds[i])),
      ...(commit === "sync" ? { target: { kind: "at-most", value: TARGET_MORE_US } } : {}),
    },
    ...both("checkpoints a second", "syncs/s", rate),
    ...both("guest stopped p50", "ms", pause(0.5)),
    ...both("round trip p50", "µs", trip),
    ...both("sender's CPU a checkpoint", "ms", ({ senderCpuMs }) => senderCpuMs),
    ...both("recv's CPU a checkpoint", "ms", ({ receiverCpuMs }) => receiverCpuMs),
    ...both("sent, first pass included", "MB", megabytes),
  ];
}
