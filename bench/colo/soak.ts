/**
 * `kemari bench soak`: whether anything grows over hundreds of thousands of checkpoints, back to
 * back: QEMU, `kemari protect`, `kemari recv`. Only when it is asked for by name.
 *
 * The guest's disk and NIC go through kemari, and it writes to its disk every second. Its RAM is
 * allocated beforehand, so that a guest that touches more of it is no growth of QEMU's; the pages of
 * the replica are not counted as recv's.
 *
 * Learned: with QEMU 11.1's description of its devices on, QEMU grows by 2 GB in 22,000 checkpoints:
 * there this experiment gives up. kemari's own ends settle within some thousands.
 */
import { formatMegabytes } from "../../lib/units.ts";
import type { BenchChart, BenchExperiment, BenchSeries } from "../../lib/report/bench_result.ts";
import { distributionOf, median } from "../../lib/report/bench_statistics.ts";
import { TransportError } from "../../lib/errors.ts";
import type { BenchContext } from "../bench_context.ts";
import { GUEST_LIMITS, GuestLab } from "../guest_lab.ts";
import { GuestRun } from "../guest_run.ts";
import { type GuestSetup, KEMARI_DEFAULT, SYNC_INTERVAL_MS } from "../guest_setups.ts";
import { memoryOf } from "../../lib/lab/vms/process_memory.ts";
import { delay } from "../../lib/host/system/delay.ts";

const CHECKPOINTS = { quick: 20_000, usual: 200_000, full: 1_000_000 };
const DISK_MIB = 64;
/** Beforehand code gets compiled, caches fill, and the replica gets its pages. */
const WARM_UP_CHECKPOINTS = 5000;
const SAMPLE_MS = 1000;
const SILENCE_MS = 30_000;
/** How often what was measured is told of, and handed in, in samples. */
const SAY_SAMPLES = 10;
const KEEP_SAMPLES = 60;
/** More points than that say nothing to the eye. */
const CHART_POINTS = 400;
/** A reading is the middle of so many: what is collected now and then comes and goes. */
const MIDDLE_OF = 5;
/** More would end this machine before the soak. */
const GIVE_UP_BYTES = 2e9;
const TARGET_MB = 32;

const PROCESSES = ["QEMU", "kemari protect", "kemari recv"] as const;
/** The replica grows with the pages that the guest has used, and with nothing else. */
const RECV = PROCESSES.indexOf("kemari recv");

const SETUP: GuestSetup = {
  ...KEMARI_DEFAULT,
  // Two that ask would ask in the middle of a checkpoint, in which QEMU 11.1 may hang.
  options: ["--sync-on", "none"],
  machineArgs: ["-mem-prealloc"],
};

/** What was in memory after so many checkpoints, in bytes. */
interface SoakSample {
  readonly checkpoints: number;
  /** Resident, in the order of {@link PROCESSES}. */
  readonly resident: readonly number[];
  /** The guest's pages in recv. */
  readonly replica: number;
}

/** What a soak has seen so far. */
interface Soak {
  readonly samples: readonly SoakSample[];
  readonly seconds: number;
  readonly stoppedMs: readonly number[];
  /** Why it ended before it had all its checkpoints. */
  readonly gaveUp?: string;
}

/** @throws {KemariError} The guest cannot be protected, or checkpoints cease. */
export async function benchSoak(context: BenchContext): Promise<BenchExperiment> {
  const { quick, full } = context;
  const count = context.checkpoints ?? CHECKPOINTS[quick ? "quick" : full ? "full" : "usual"];
  await using lab = await GuestLab.make(context, DISK_MIB);
  context.progress("soak", 0, count, "booting");
  await using run = await GuestRun.start(lab, SETUP);
  await run.run("(while :; do date > /mnt/soak; sleep 1; done) > /dev/null 2>&1 &");
  run.stops.askBackToBack(SYNC_INTERVAL_MS);
  const soak = await soakFor(run, count, context, (soFar) => {
    const done = soFar.samples.at(-1)!.checkpoints;
    context.keep({ ...experimentOf(lab, soFar), partial: `${done} of ${count} checkpoints` });
  });
  return experimentOf(lab, soak);
}

async function soakFor(
  run: GuestRun,
  count: number,
  context: BenchContext,
  keep: (soFar: Soak) => void,
): Promise<Soak> {
  const { signal } = context;
  const { senderPid, receiverPid, receiverStatus } = run.ends!;
  const pids = [run.vm.pid, senderPid, receiverPid];
  const warmUp = Math.min(WARM_UP_CHECKPOINTS, Math.ceil(count / 10));
  const { stops } = run;
  const begun = stops.count;
  const samples: SoakSample[] = [];
  let fromMs = 0;
  let seen = begun;
  let seenAt = performance.now();
  const soFar = (gaveUp?: string): Soak => {
    const toMs = Date.now();
    const stoppedMs = stops.between(fromMs, toMs).map(({ durationMs }) => durationMs);
    return { samples, seconds: (toMs - fromMs) / 1000, stoppedMs, gaveUp };
  };
  for (;;) {
    await delay(Math.min(SAMPLE_MS, SAMPLE_MS * count / CHECKPOINTS.quick), signal);
    if (stops.count > seen) {
      seen = stops.count;
      seenAt = performance.now();
    } else if (performance.now() - seenAt > SILENCE_MS) {
      throw new TransportError(stops.client.path, "read", "QEMU makes no checkpoints any more");
    }
    const checkpoints = seen - begun - warmUp;
    if (checkpoints < 0) continue;
    if (samples.length === 0) fromMs = Date.now();
    const { replicaBytes } = await receiverStatus();
    samples.push({ checkpoints, resident: pids.map(residentBytes), replica: replicaBytes });
    if (checkpoints >= count) return soFar();
    const grown = growthOf(samples, 0);
    if (grown > GIVE_UP_BYTES) {
      return soFar(`given up after ${checkpoints} checkpoints, when QEMU had grown by 2 GB`);
    }
    if (samples.length % SAY_SAMPLES === 1) {
      const what = `QEMU has grown by ${formatMegabytes(grown)}`;
      context.progress("soak", checkpoints, count, what);
    }
    if (samples.length % KEEP_SAMPLES === 0) keep(soFar());
  }
}

/** @param index Which of {@link PROCESSES} it is. @throws {TransportError} It has ended. */
function residentBytes(pid: number, index: number): number {
  try {
    return memoryOf(pid).resident;
  } catch (cause) {
    throw new TransportError(PROCESSES[index], "read", "it ended during the soak", { cause });
  }
}

/** What a process has beside the guest's pages. */
function ownBytes({ resident, replica }: SoakSample, index: number): number {
  return index === RECV ? resident[index] - replica : resident[index];
}

/** How much more a process has at the end than it had at the beginning, in bytes. */
function growthOf(samples: readonly SoakSample[], index: number): number {
  const of = (some: readonly SoakSample[]) => median(some.map((sample) => ownBytes(sample, index)));
  const few = Math.min(MIDDLE_OF, Math.ceil(samples.length / 2));
  return of(samples.slice(-few)) - of(samples.slice(0, few));
}

function experimentOf(lab: GuestLab, soak: Soak): BenchExperiment {
  const { samples, seconds, stoppedMs, gaveUp } = soak;
  const { checkpoints } = samples.at(-1)!;
  const stopped = distributionOf("guest stopped", "ms", stoppedMs);
  return {
    name: "soak",
    about: `what grows over ${checkpoints} checkpoints, back to back, after a warm-up`,
    conditions: lab.conditions("none"),
    series: [
      ...PROCESSES.map((name, i): BenchSeries => ({
        name: `${name}: grown`,
        unit: "MB",
        samples: [growthOf(samples, i) / 1e6],
        target: { kind: "at-most", value: TARGET_MB },
      })),
      ...PROCESSES.map((name, i): BenchSeries => ({
        name: `${name}: resident at the end`,
        unit: "MB",
        samples: [samples.at(-1)!.resident[i] / 1e6],
      })),
      {
        name: "the replica's pages at the end",
        unit: "MB",
        samples: [samples.at(-1)!.replica / 1e6],
      },
      { name: "checkpoints", unit: "", samples: [checkpoints] },
      { name: "checkpoints a second", unit: "1/s", samples: [stoppedMs.length / seconds] },
    ],
    charts: [chartOf(samples)],
    distributions: stopped === undefined ? [] : [stopped],
    notes: [
      `kemari is ${lab.kemari.about}; disk and NIC through kemari, --sync-on none, a request for ` +
      "the next checkpoint when QEMU says RESUME; the guest writes to its disk every second",
      `grown: resident memory, the middle of the last ${MIDDLE_OF} readings against the first ` +
      `${MIDDLE_OF} after a warm-up of up to ${WARM_UP_CHECKPOINTS} checkpoints; the guest's RAM is ` +
      "allocated beforehand, and recv's is without the replica's pages, which are as many as the " +
      "guest has used",
      ...(gaveUp === undefined ? [] : [gaveUp]),
      ...lab.linkNotes(),
    ],
    cannotShow: GUEST_LIMITS,
  };
}

function chartOf(samples: readonly SoakSample[]): BenchChart {
  const step = Math.ceil(samples.length / CHART_POINTS);
  const shown = samples.filter((_, i) => i % step === 0 || i === samples.length - 1);
  return {
    name: "memory over checkpoints",
    x: { name: "checkpoints", unit: "" },
    y: { name: "resident, more than at first", unit: "MB" },
    curves: PROCESSES.map((name, i) => ({
      name,
      points: shown.map((sample) =>
        [sample.checkpoints, (ownBytes(sample, i) - ownBytes(samples[0], i)) / 1e6] as const
      ),
    })),
  };
}
