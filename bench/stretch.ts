/** Measures a stretch of time in which a guest runs one workload: rates over time, and totals. */
import type { RecentDurations } from "../lib/control/recent_durations.ts";
import type { SentParts } from "../lib/control/sender_status.ts";
import type { GuestRun } from "./guest_run.ts";
import type { TappedStatus } from "../lib/lab/program/ask_end.ts";
import type { Workload } from "./workload.ts";
import { delay } from "../lib/host/system/delay.ts";

/** How often counters are read. */
const STEP_MS = 250;
/**
 * Warm-up before a stretch: caches fill, code gets compiled. For short stretches a quarter of their
 * length.
 */
const WARM_UP_MS = 1000;

/** Bytes per second in one step; `x` is the step's middle, in seconds. */
interface TrafficStep {
  readonly x: number;
  /** On the link, both directions; null if the link is not counted. */
  readonly link: number | null;
  /** Produced by the sender, before packing; only with kemari. */
  readonly sent?: SentParts;
}

/** The results of a stretch. */
export interface Stretch {
  readonly seconds: number;
  readonly steps: readonly TrafficStep[];
  /** Syncs in each step, per second. */
  readonly rates: readonly (readonly [number, number])[];
  readonly syncs: number;
  /** QEMU's STOP to RESUME. */
  readonly pausesMs: readonly number[];
  /** Bytes on the link, as its device counts them. */
  readonly linkBytes: number | undefined;
  /** Bytes that kemari's sender wrote to its connection. */
  readonly wireBytes: number | undefined;
  /** Bytes that the sender produced, before packing. */
  readonly sent: SentParts | undefined;
  /** COMMIT to ACK. */
  readonly commitsMs: readonly number[];
  /** How long packets, and epochs of disk writes, were held. */
  readonly netHoldsMs: readonly number[];
  readonly diskHoldsMs: readonly number[];
  /** Units of work that the workload did. */
  readonly work: number;
}

interface Sample {
  readonly atMs: number;
  readonly link: number | undefined;
  readonly status: TappedStatus | undefined;
}

/** Starts the workload, measures, and ends it. */
export async function measureStretch(
  run: GuestRun,
  workload: Workload,
  seconds: number,
): Promise<Stretch> {
  const { signal } = run.lab.context;
  await using running = await workload.start(run);
  await delay(Math.min(WARM_UP_MS, seconds * 250), signal);
  const workBefore = await running.done();
  const before = run.isProtected ? await run.durations() : undefined;
  const samples = [await sample(run)];
  const fromMs = samples[0].atMs;
  for (let step = 1; step * STEP_MS <= seconds * 1000; step++) {
    await delay(Math.max(0, fromMs + step * STEP_MS - Date.now()), signal);
    samples.push(await sample(run));
  }
  const after = run.isProtected ? await run.durations() : undefined;
  const work = await running.done() - workBefore;
  await running.stop();
  const first = samples[0];
  const last = samples.at(-1)!;
  const pausesMs = run.stops.between(fromMs, last.atMs).map(({ durationMs }) => durationMs);
  const newer = (of: (from: typeof before & object) => RecentDurations | undefined) =>
    before === undefined || after === undefined ? [] : durationsSince(of(before), of(after));
  return {
    seconds: (last.atMs - fromMs) / 1000,
    steps: stepsOf(samples),
    rates: samples.slice(1).map(({ atMs }, i) => {
      const syncs = run.stops.between(samples[i].atMs, atMs).length;
      return [middle(samples[i], samples[i + 1], fromMs), syncs * 1000 / (atMs - samples[i].atMs)];
    }),
    syncs: pausesMs.length,
    pausesMs,
    linkBytes: last.link === undefined ? undefined : last.link - first.link!,
    wireBytes: last.status && last.status.wireBytes - first.status!.wireBytes,
    sent: last.status && partsBetween(first.status!.sent, last.status.sent, 1),
    commitsMs: newer(({ roundTrip }) => roundTrip),
    netHoldsMs: newer(({ netHold }) => netHold.net0),
    diskHoldsMs: newer(({ diskHold }) => diskHold),
    work,
  };
}

/** The durations that were added after an earlier reading, if they are still kept. */
export function durationsSince(
  before: RecentDurations | undefined,
  after: RecentDurations | undefined,
): readonly number[] {
  if (after === undefined) return [];
  const count = after.count - (before?.count ?? 0);
  return count === 0 ? [] : after.ms.slice(-count);
}

async function sample(run: GuestRun): Promise<Sample> {
  const status = run.isProtected ? await run.status() : undefined;
  return { atMs: Date.now(), link: run.linkBytes(), status };
}

function stepsOf(samples: readonly Sample[]): TrafficStep[] {
  return samples.slice(1).map((here, i) => {
    const there = samples[i];
    const perSecond = 1000 / (here.atMs - there.atMs);
    return {
      x: middle(there, here, samples[0].atMs),
      link: here.link === undefined ? null : (here.link - there.link!) * perSecond,
      sent: here.status && partsBetween(there.status!.sent, here.status.sent, perSecond),
    };
  });
}

function middle(a: Sample, b: Sample, fromMs: number): number {
  return Math.round((a.atMs + b.atMs) / 2 - fromMs) / 1000;
}

function partsBetween(from: SentParts, to: SentParts, factor: number): SentParts {
  return {
    pages: (to.pages - from.pages) * factor,
    deviceState: (to.deviceState - from.deviceState) * factor,
    events: (to.events - from.events) * factor,
    framing: (to.framing - from.framing) * factor,
  };
}
