/**
 * `kemari bench soak`: whether anything grows over hundreds of thousands of checkpoints, back to
 * back: QEMU, `kemari protect`, `kemari recv`. Runs only if it is named.
 *
 * The guest's disk and NIC go through kemari, and it writes to its disk every second. Its RAM is
 * allocated beforehand, so that a guest that touches more RAM does not make QEMU grow; the
 * replica's pages are not counted for recv.
 *
 * Results: if QEMU 11.1 describes its devices, it grows by 2 GB in 22,000 checkpoints: then this
 * experiment stops. kemari's own ends stop growing within some thousands.
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
/** Warm-up: code gets compiled, caches fill, and the replica gets its pages. */
const WARM_UP_CHECKPOINTS = 5000;
const SAMPLE_MS = 1000;
const SILENCE_MS = 30_000;
/** After how many samples the results so far are reported and handed in. */
const SAY_SAMPLES = 10;
const KEEP_SAMPLES = 60;
/** More points would not be visible. */
const CHART_POINTS = 400;
/** A reading is the median of this many samples: garbage comes and goes. */
const MIDDLE_OF = 5;
/** Growth at which the soak stops: the machine would run out of memory. */
const GIVE_UP_BYTES = 2e9;
const TARGET_MB = 32;

const PROCESSES = ["QEMU", "kemari protect", "kemari recv"] as const;
/** The replica grows only with the pages that the guest has used. */
const RECV = PROCESSES.indexOf("kemari recv");

const SETUP: GuestSetup = {
  ...KEMARI_DEFAULT,
  // kemari must not request checkpoints too: a request in the middle of a checkpoint may hang QEMU
  // 11.1.
  options: ["--sync-on", "none"],
  machineArgs: ["-mem-prealloc"],
};

/** The memory in use after a number of checkpoints, in bytes. */
interface SoakSample {
  readonly checkpoints: number;
  /** Resident memory, in the order of {@link PROCESSES}. */
  readonly resident: readonly number[];
  /** The guest's pages in recv. */
  readonly replica: number;
}

/** The results of a soak so far. */
interface Soak {
  readonly samples: readonly SoakSample[];
  readonly seconds: number;
  readonly stoppedMs: readonly number[];
  /** Why the soak ended before all its checkpoints. */
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

/** @param index Index in {@link PROCESSES}. @throws {TransportError} The process has ended. */
function residentBytes(pid: number, index: number): number {
  try {
    return memoryOf(pid).resident;
  } catch (cause) {
    throw new TransportError(PROCESSES[index], "read", "it ended during the soak", { cause });
  }
}

/** A process's memory without the guest's pages. */
function ownBytes({ resident, replica }: SoakSample, index: number): number {
  return index === RECV ? resident[index] - replica : resident[index];
}

/** How much a process has grown between the beginning and the end, in bytes. */
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
