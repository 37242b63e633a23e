/**
 * `kemari bench compress`: how much `--compress` reduces checkpoints, and how much time it takes.
 *
 * Both ends in one process, without sockets: the sender's time before QEMU has its answer and after
 * it, the receiver's, and the bytes on the wire, for each mode, from a synthetic series of
 * checkpoints.
 *
 * Results, from recorded sessions of real guests (512 MB, TCG; file I/O, and small requests):
 * - a fifth to two fifths of the pages that QEMU sends are unchanged, and in most of the others
 *   some dozen bytes change;
 * - comparing and encoding a page takes about 1 µs (0.4 µs in the best case), and copying a new
 *   page 0.2 µs; zstd at level 1 takes 0.5–1.4 ns for each remaining byte, and 1–4 ns if other
 *   programs have emptied the cache;
 * - one zstd stream for the whole connection is many times better than one for each frame: the
 *   device state, 100 KB a checkpoint, is nearly equal to the last;
 * - for file I/O, a window of 1 MiB leaves six times as many bytes as a window of 64 MiB: a guest
 *   puts the same content into other pages, and onto its disk, some seconds later. 16 MiB gain next
 *   to nothing, nor do higher levels; long-distance matching leaves an eighth, but takes two to
 *   three times the CPU time, see `zstd_context.ts`.
 */
import { Carry } from "../lib/bytes/carry.ts";
import { compressionOf } from "../lib/host/link/compress_settings.ts";
import type { CompressMode } from "../lib/control/sender_status.ts";
import { Primary, type PrimaryTaps } from "../lib/replica/primary/primary.ts";
import { Replica } from "../lib/replica/secondary/replica.ts";
import { encodeTapEvent } from "../lib/replica/events/tap_events.ts";
import { SecondaryTaps } from "../lib/replica/events/secondary_taps.ts";
import { Secondary } from "../lib/replica/secondary/secondary.ts";
import { median, pairedRatios } from "../lib/report/bench_statistics.ts";
import type { BenchExperiment, BenchGrid } from "../lib/report/bench_result.ts";
import type { BenchContext } from "./bench_context.ts";
import { type CheckpointSeries, checkpointSeries, DISK, GUESTS } from "./checkpoint_series.ts";
import { delay } from "../lib/host/system/delay.ts";

export const COMPRESS_MODES: readonly CompressMode[] = ["none", "zstd", "delta", "auto"];

const ROUNDS = 7;
const QUICK_ROUNDS = 3;
const CHECKPOINTS = 300;
const QUICK_CHECKPOINTS = 100;
/**
 * The first checkpoints have no earlier pages to compare with, and the code is not compiled yet.
 */
const WARM_UP = 40;
const CACHE_BYTES = 256 * 2 ** 20;
const DISK_BYTES = 2 ** 40;

/** The result of sending a series through both ends, without its first checkpoints. */
interface CompressRun {
  readonly wireBytes: number;
  readonly pages: number;
  readonly streamBytes: number;
  /** Time in which the VM stands still. */
  readonly readingMs: number;
  readonly settlingMs: number;
  readonly receivingMs: number;
  readonly replica: Replica;
}

/** Sends a series through both ends. */
export function runSeries(series: CheckpointSeries, compress: CompressMode): CompressRun {
  const clock = () => performance.now();
  const compression = compressionOf({ compress, deltaCacheBytes: CACHE_BYTES });
  const named = { kind: "disk", tap: DISK, sizeBytes: DISK_BYTES, mode: "replicated" } as const;
  let events: Uint8Array[][] = [encodeTapEvent(named)];
  const taps: PrimaryTaps = {
    checkpointRequested() {},
    holdInputs: () => true,
    giveInputs() {},
    vmStops() {},
    drain() {},
    takeEvents: () => events.splice(0),
    closeEpoch() {},
    release() {},
  };
  const link = { heartbeatMs: 1e6, graceMs: 1e7, software: "bench" };
  const session = new Uint8Array(16);
  const primary = new Primary(
    { commit: "async", stream: "colo", maxInFlightBytes: 64 * 2 ** 20, compression, taps },
    { ...link, session },
    clock(),
    clock,
  );
  const replica = new Replica(
    2 ** 30,
    undefined,
    new SecondaryTaps(
      new Map([[DISK, {
        mode: "replicated",
        sizeBytes: DISK_BYTES,
        copy: { sizeBytes: DISK_BYTES, write() {}, zero() {}, read() {}, zeroBytes: () => 0 },
      }]]),
      new Set(),
    ),
  );
  const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
  const options = { ...link, maxTransactionBytes: 2 ** 30, committed: 0 };
  const secondary = new Secondary(replica, counters, options, clock(), clock);
  const total = { wireBytes: 0, streamBytes: 0, readingMs: 0, settlingMs: 0, receivingMs: 0 };
  const toSecondary = new Carry();
  const toPrimary = new Carry();
  const deliver = (counted: boolean) => {
    const begun = clock();
    primary.takeReplies();
    const output = primary.takeOutput();
    const settled = clock();
    for (const bytes of output) {
      if (counted) total.wireBytes += bytes.length;
      toSecondary.feed(bytes, 0, bytes.length, (b, s, e) => secondary.receive(b, s, e, clock()));
    }
    const received = clock();
    for (const bytes of secondary.takeOutput()) {
      toPrimary.feed(bytes, 0, bytes.length, (b, s, e) => primary.receivePeer(b, s, e, clock()));
    }
    primary.takeEvents();
    if (!counted) return;
    total.settlingMs += settled - begun;
    total.receivingMs += received - settled;
  };
  deliver(false);
  primary.receiveStream(series.first, 0, series.first.length, clock());
  deliver(false);
  let pages = 0;
  series.checkpoints.forEach((bytes, i) => {
    const counted = i >= WARM_UP;
    events = [...series.events[i]];
    if (counted) { for (const piece of events.flat()) total.streamBytes += piece.length; }
    const begun = clock();
    primary.receiveStream(bytes, 0, bytes.length, begun);
    if (counted) {
      total.readingMs += clock() - begun;
      total.streamBytes += bytes.length;
      pages += series.pages / series.checkpoints.length;
    }
    deliver(counted);
  });
  return { ...total, pages, replica };
}

export async function benchCompress(context: BenchContext): Promise<BenchExperiment> {
  const rounds = context.rounds ?? (context.quick ? QUICK_ROUNDS : ROUNDS);
  const count = context.quick ? QUICK_CHECKPOINTS : CHECKPOINTS;
  const runs = new Map<string, CompressRun[]>();
  const steps = GUESTS.length * rounds;
  let step = 0;
  for (const guest of GUESTS) {
    const series = checkpointSeries(guest, count);
    // Round 0 warms up code and memory, and does not count.
    for (let round = 0; round <= rounds; round++) {
      if (round > 0) context.progress("compress", step++, steps, `${guest}, round ${round}`);
      for (let turn = 0; turn < COMPRESS_MODES.length; turn++) {
        await delay(0);
        context.signal.throwIfAborted();
        const mode = COMPRESS_MODES[(turn + round) % COMPRESS_MODES.length];
        const run = runSeries(series, mode);
        if (round > 0) runs.set(`${mode} ${guest}`, [...runs.get(`${mode} ${guest}`) ?? [], run]);
      }
    }
  }
  const grid = (name: string, unit: string, value: (run: CompressRun) => number): BenchGrid => ({
    name,
    unit,
    rows: COMPRESS_MODES,
    columns: GUESTS,
    cells: COMPRESS_MODES.map((mode) =>
      GUESTS.map((guest) => runs.get(`${mode} ${guest}`)!.map(value))
    ),
  });
  const bytes = (run: CompressRun) => run.wireBytes;
  return {
    name: "compress",
    about: `${count - WARM_UP} checkpoints of made-up guests through both ends in one process: ` +
      "what --compress makes of them, and what it costs",
    conditions: { checkpoints: String(count), "delta cache": "256 MiB" },
    series: GUESTS.filter((guest) => guest !== "random").map((guest) => ({
      name: `delta / none, bytes, ${guest}`,
      unit: "×",
      samples: pairedRatios(
        runs.get(`delta ${guest}`)!.map(bytes),
        runs.get(`none ${guest}`)!.map(bytes),
      ),
      target: { kind: "at-most", value: 0.25 } as const,
    })),
    grids: [
      grid("on the wire, of QEMU's bytes", "×", (run) => run.wireBytes / run.streamBytes),
      grid("sender, until QEMU has its answer", "ns/page", (run) => perPage(run, run.readingMs)),
      grid("sender, after that", "ns/page", (run) => perPage(run, run.settlingMs)),
      grid("receiver", "ns/page", (run) => perPage(run, run.receivingMs)),
      grid(
        "both ends, QEMU's bytes",
        "GB/s",
        (run) => run.streamBytes / 1e6 / (run.readingMs + run.settlingMs + run.receivingMs),
      ),
    ],
    notes: [
      `a checkpoint has ${
        median([...runs.values()].map(([{ pages }]) => pages)) /
        (count - WARM_UP)
      } pages in the median, and its device state`,
      "packing touches its window of 64 MiB for the first time while it is measured: a session pays " +
      "for that once, here it is a large part of what zstd and delta take",
      "the device state is a real machine's; its changes and the pages are made up: real guests " +
      "have other ratios",
    ],
    cannotShow: ["what a link's speed makes of it: both ends are in one process"],
  };
}

function perPage({ pages }: CompressRun, ms: number): number {
  return ms * 1e6 / pages;
}
