/**
 * `kemari bench compress-live`: how much `--compress` reduces a real guest's checkpoints, over
 * links of 1 and 10 Gb/s.
 *
 * A round boots a guest for each mode, in turn, and runs two workloads in it over each link. The
 * bytes on the link are compared with what QEMU and the taps had to send in the same time, so that
 * a guest that did more work does not count as worse.
 *
 * Results (two runs, of 3 and 2 rounds of 4 s, on two cores that others used too: times differ by
 * 10 to 40 % between rounds, bytes by 5 %):
 * - delta sends 0.11 of none's bytes with files and 0.011 with requests, and the VM stands still
 *   for 0.6 to 0.7 of none's time, since nothing is forwarded during the stop;
 * - at 1 Gb/s delta's acknowledgement comes after 0.87 to 0.94 (files) and 0.54 to 0.91 (requests)
 *   of none's time. At 10 Gb/s none's comes soonest, from the VM's stop on after 3.0 to 3.6 ms,
 *   delta's after 4.5 to 7.5: `auto` then sends QEMU's own bytes, and no choice here sends a
 *   hundredth of the bytes without a later commit;
 * - zstd alone, with a window of 64 MiB, finds nearly everything that delta finds, and is as fast
 *   or faster (requests at 1 Gb/s, from the VM's stop on: 5.2 ms, delta 5.8 to 7.9): comparing
 *   pages takes longer than packing them. Since then `auto` can choose it;
 * - `auto` used to compare means. The checkpoints at the beginning of a session took twenty times
 *   as long as later checkpoints, so the choices that were tried first were hardly tried again: at
 *   1 Gb/s it sent 0.87 and 0.73 of none's bytes, and sends 0.19 and 0.065 now, with a commit that
 *   is as fast as the best choice's, or nearly;
 * - 175 KB of differences take zstd 2 ms here, recorded ones in a loop 0.25 ms, and 0.7 ms with the
 *   CPU's cache emptied before each: the rest comes from sharing two cores between both ends, QEMU
 *   and other programs.
 */
import type { CompressMode } from "../lib/control/sender_status.ts";
import type { RecentDurations } from "../lib/control/recent_durations.ts";
import { median, pairedRatios } from "../lib/report/bench_statistics.ts";
import type { BenchExperiment, BenchGrid, BenchSeries } from "../lib/report/bench_result.ts";
import type { BenchContext, LinkRate } from "./bench_context.ts";
import { COMPRESS_MODES } from "./compress.ts";
import { GUEST_LIMITS, GuestLab } from "./guest_lab.ts";
import { GuestRun } from "./guest_run.ts";
import type { TappedStatus } from "../lib/lab/program/ask_end.ts";
import { iozoneCommand } from "./iozone_program.ts";
import { delay } from "../lib/host/system/delay.ts";

const WORKLOADS = ["files", "requests"] as const;
type Workload = typeof WORKLOADS[number];

const DISK_MIB = 64;
const FILE_BYTES = 4 * 2 ** 20;
const ROUNDS = 3;
const QUICK_ROUNDS = 1;
const SECONDS = 6;
const QUICK_SECONDS = 4;
const SETTLE_MS = 500;
/** A checkpoint every 20 ms or when the guest sends something: enough of them in a few seconds. */
const OPTIONS = ["--sync-interval", "20"];

/** The results of a mode over a link in a workload, a sample per round. */
class Cell {
  readonly ratios: number[] = [];
  readonly wireKb: number[] = [];
  readonly pauseMs: number[] = [];
  readonly commitMs: number[] = [];
  readonly stoppedToCommitMs: number[] = [];
  readonly syncsPerSecond: number[] = [];
}

/** @throws {KemariError} QEMU, guest or link cannot be set up. */
export async function benchCompressLive(context: BenchContext): Promise<BenchExperiment> {
  const rounds = context.rounds ?? (context.quick ? QUICK_ROUNDS : ROUNDS);
  const seconds = context.seconds ?? (context.quick ? QUICK_SECONDS : SECONDS);
  await using lab = await GuestLab.make(context, DISK_MIB);
  const links = lab.links(context.links ?? ["10G", "1G"]);
  const cells = new Map<string, Cell>();
  const cell = (mode: CompressMode, workload: Workload, link: LinkRate): Cell => {
    const key = `${mode} ${workload} ${link}`;
    if (!cells.has(key)) cells.set(key, new Cell());
    return cells.get(key)!;
  };
  const total = rounds * COMPRESS_MODES.length;
  for (let step = 0; step < total; step++) {
    context.signal.throwIfAborted();
    const round = Math.floor(step / COMPRESS_MODES.length);
    const mode = COMPRESS_MODES[(step + round) % COMPRESS_MODES.length];
    context.progress("compress-live", step, total, `round ${round + 1}, ${mode}`);
    await lab.shape("none");
    const options = [...OPTIONS, "--compress", mode];
    await using run = await GuestRun.start(lab, { name: mode, kind: "kemari", options });
    await run.run(PREPARE_REQUESTS);
    for (const link of links) {
      await lab.shape(link);
      for (const workload of WORKLOADS) {
        await measure(run, workload, seconds, cell(mode, workload, link));
      }
    }
    if (step + 1 < total) {
      const partial = `${step + 1} of ${total} measurements`;
      context.keep({ ...experimentOf(lab, links, seconds, cell), partial });
    }
  }
  return experimentOf(lab, links, seconds, cell);
}

/** A service that counts in memory and notes every request on the protected disk. */
const PREPARE_REQUESTS = `mkdir -p /mem/www/cgi-bin
cat > /mem/www/cgi-bin/count << 'END'
#!/bin/sh
echo Content-type: text/plain
echo
read -r n < /mem/n
n=$((n + 1))
echo $n > /mem/n
echo "$n $QUERY_STRING" >> /mnt/log
echo "request $n"
END
chmod +x /mem/www/cgi-bin/count
echo 0 > /mem/n
httpd -p 127.0.0.1:8080 -h /mem/www`;

/** The workload's command; it ends by itself after `seconds` of the guest's clock. */
function commandOf(workload: Workload, seconds: number): string {
  const body = workload === "files"
    ? [0, 2].map((test) => `${iozoneCommand(test, FILE_BYTES, 4096)} > /mem/iozone.log`).join("; ")
    : `i=$((i + 1)); wget -q -O /dev/null "http://127.0.0.1:8080/cgi-bin/count?$i"`;
  return `i=0; end=$(($(date +%s) + ${seconds})); ` +
    `while [ $(date +%s) -lt $end ]; do ${body} || exit 1; done`;
}

async function measure(
  run: GuestRun,
  workload: Workload,
  seconds: number,
  cell: Cell,
): Promise<void> {
  await delay(SETTLE_MS);
  const before = await reading(run);
  await run.run(commandOf(workload, seconds));
  const after = await reading(run);
  const syncs = after.status.syncs - before.status.syncs;
  const made = madeBytes(after.status) - madeBytes(before.status);
  const wire = after.wireBytes - before.wireBytes;
  cell.ratios.push(wire / made);
  cell.wireKb.push(wire / syncs / 1000);
  cell.syncsPerSecond.push(syncs / (after.atMs - before.atMs) * 1000);
  cell.pauseMs.push(median(since(after.durations.pause, before.durations.pause)));
  const readMs = since(after.durations.receiving, before.durations.receiving);
  const roundTripMs = since(after.durations.roundTrip, before.durations.roundTrip);
  cell.commitMs.push(median(roundTripMs));
  cell.stoppedToCommitMs.push(median(sums(readMs, roundTripMs)));
}

async function reading(run: GuestRun) {
  const status = await run.status();
  const durations = await run.durations();
  const wireBytes = run.linkBytes() ?? status.wireBytes;
  return { status, durations, wireBytes, atMs: performance.now() };
}

/** What QEMU and the taps had to send. */
function madeBytes({ compression, sent }: TappedStatus): number {
  return compression.streamBytes + sent.events;
}

/** The durations that were added between two readings. */
function since(after: RecentDurations, before: RecentDurations): number[] {
  const fresh = after.count - before.count;
  return fresh === 0 ? [] : after.ms.slice(-fresh);
}

/**
 * The sum of both durations of each checkpoint; a checkpoint at either end of the time may lack one
 * of them.
 */
function sums(a: readonly number[], b: readonly number[]): number[] {
  return a.slice(0, Math.min(a.length, b.length)).map((ms, i) => ms + b[i]);
}

function experimentOf(
  lab: GuestLab,
  links: readonly LinkRate[],
  seconds: number,
  cell: (mode: CompressMode, workload: Workload, link: LinkRate) => Cell,
): BenchExperiment {
  const modes = COMPRESS_MODES.filter((mode) => cell(mode, "files", links[0]).ratios.length > 0);
  const columns = links.flatMap((link) => WORKLOADS.map((workload) => ({ link, workload })));
  const grid = (name: string, unit: string, samples: (cell: Cell) => number[]): BenchGrid => ({
    name,
    unit,
    rows: modes,
    columns: columns.map(({ link, workload }) => `${workload}, ${link}`),
    cells: modes.map((mode) =>
      columns.map(({ link, workload }) => samples(cell(mode, workload, link)))
    ),
  });
  const against = (
    what: string,
    mode: CompressMode,
    link: LinkRate,
    samples: (cell: Cell) => number[],
    most: number,
  ): BenchSeries[] =>
    !links.includes(link) ? [] : WORKLOADS.map((workload) => ({
      name: `${mode} / none, ${what}, ${workload}, ${link}`,
      unit: "×",
      samples: pairedRatios(
        samples(cell(mode, workload, link)),
        samples(cell("none", workload, link)),
      ),
      target: { kind: "at-most" as const, value: most },
    }));
  return {
    name: "compress-live",
    about:
      "a protected guest under load: bytes on the sync link, pause, and time to commit, with " +
      "each --compress",
    conditions: { ...lab.conditions(links.join(", ")), seconds: String(seconds) },
    series: [
      ...links.flatMap((link) => against("bytes", "delta", link, ({ ratios }) => ratios, 0.25)),
      ...against("pause", "delta", "10G", ({ pauseMs }) => pauseMs, 1.1),
      ...against("time to commit", "delta", "1G", ({ commitMs }) => commitMs, 1),
      ...against("pause", "auto", "10G", ({ pauseMs }) => pauseMs, 1.1),
      ...links.flatMap((link) =>
        against("time to commit", "auto", link, ({ commitMs }) => commitMs, 1)
      ),
    ],
    grids: [
      grid("on the link, of what QEMU and the taps had to send", "×", ({ ratios }) => ratios),
      grid("on the link, a checkpoint", "KB", ({ wireKb }) => wireKb),
      grid("pause, median", "ms", ({ pauseMs }) => pauseMs),
      grid("checkpoint read to acknowledged, median", "ms", ({ commitMs }) => commitMs),
      grid(
        "VM stopped to checkpoint acknowledged, median",
        "ms",
        ({ stoppedToCommitMs }) => stoppedToCommitMs,
      ),
      grid("syncs", "1/s", ({ syncsPerSecond }) => syncsPerSecond),
    ],
    notes: [
      `kemari is ${lab.kemari.about}; ${OPTIONS.join(" ")}`,
      `files: iozone, ${
        FILE_BYTES / 2 ** 20
      } MiB in records of 4 KiB on the protected disk, over ` +
      "and over; requests: a CGI script behind the guest's own web server, that counts in memory " +
      "and on the protected disk",
      ...lab.linkNotes(),
    ],
    cannotShow: [
      ...GUEST_LIMITS,
      "two hosts' time to commit: what compresses on one core here keeps the other end from it",
    ],
  };
}
