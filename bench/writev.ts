/**
 * `kemari bench writev`: sending a transaction's pages to a socket, either copied into a buffer for
 * write(2), or gathered by writev(2) without that copy.
 *
 * The 2010 talk's second optimization (17 %). A transaction here is 1 to 4,096 pages at random
 * places of 256 MiB, each behind its record's header of 8 bytes, like pages from a replica, or from
 * a stream without its unchanged pages. It goes over loopback TCP or a Unix socket to a socat that
 * discards it. Each way sends it again and again; the cost of a page is measured as time and as CPU
 * time of the sending process alone.
 *
 * Results: at 1 to 16 pages the difference is too small to measure on a shared machine (over TCP
 * gathering was up to 20 % slower in some runs, equal in others), since the call itself and the
 * kernel's part take most of the time; from 24 pages on gathering takes 10–35 % less CPU time and
 * is up to twice as fast on a Unix socket. Copying pages too while the queue is short was tried and
 * gained nothing. So the product gathers at every size, and copies only pieces shorter than 1 KiB.
 */
import { TransportError } from "../lib/errors.ts";
import { OutputQueue } from "../lib/host/system/channel.ts";
import { errno, errnoText, libc } from "../lib/host/system/libc.ts";
import { ERRNO, POLLOUT } from "../lib/host/system/linux.ts";
import { Reactor } from "../lib/host/system/reactor.ts";
import { connectSocket } from "../lib/host/system/socket.ts";
import type { BenchChart, BenchExperiment, BenchSeries } from "../lib/report/bench_result.ts";
import { median, pairedRatios } from "../lib/report/bench_statistics.ts";
import { ensureTool } from "../lib/lab/provision/tools.ts";
import process from "node:process";
import type { BenchContext } from "./bench_context.ts";
import { atExit, endQuietly, WorkFolder } from "../lib/lab/program/work_folder.ts";
import { delay } from "../lib/host/system/delay.ts";

export const PAGE_BYTES = 4096;
export const HEADER_BYTES = 8;
const MEMORY_BYTES = 256 * 2 ** 20;
/** A size that fits a core's own cache. */
const CHUNK_BYTES = 256 * 1024;
const SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
const QUICK_SIZES = [1, 4, 16, 64, 256, 1024, 4096];
const SAMPLE_BYTES = 128 * 2 ** 20;
const QUICK_SAMPLE_BYTES = 32 * 2 ** 20;
const ROUNDS = 15;
const QUICK_ROUNDS = 7;
const TOLD_PAGES = 64;

/** A way to send. @param pieces Header, page, header, page, … */
interface WriteWay {
  readonly name: string;
  send(fd: number, pieces: readonly Uint8Array[]): void;
}

const COPY_ALL = "copy all, write";
const COPY_CHUNKS = "copy 256 KiB, write";
const GATHER = "gather (the product)";

/** All ways; each has its own buffers. */
export function writeWays(): WriteWay[] {
  const all = new Uint8Array(Math.max(...SIZES) * (HEADER_BYTES + PAGE_BYTES));
  const chunk = new Uint8Array(CHUNK_BYTES);
  const queues = new Map<number, OutputQueue>();
  return [
    { name: COPY_ALL, send: (fd, pieces) => copyAndWrite(fd, pieces, all) },
    { name: COPY_CHUNKS, send: (fd, pieces) => copyAndWrite(fd, pieces, chunk) },
    {
      name: GATHER,
      send(fd, pieces) {
        let queue = queues.get(fd);
        if (queue === undefined) queues.set(fd, queue = new OutputQueue(fd, "bench"));
        queue.push(pieces);
        while (!queue.flush()) waitWritable(fd);
      },
    },
  ];
}

function copyAndWrite(
  fd: number,
  pieces: readonly Uint8Array[],
  buffer: Uint8Array<ArrayBuffer>,
): void {
  let used = 0;
  for (const piece of pieces) {
    if (used + piece.length > buffer.length) {
      writeAll(fd, buffer.subarray(0, used));
      used = 0;
    }
    buffer.set(piece, used);
    used += piece.length;
  }
  writeAll(fd, buffer.subarray(0, used));
}

function writeAll(fd: number, bytes: Uint8Array<ArrayBuffer>): void {
  for (let done = 0; done < bytes.length;) {
    const rest = done === 0 ? bytes : bytes.subarray(done);
    const wrote = Number(libc().write(fd, rest, BigInt(rest.length)));
    if (wrote >= 0) done += wrote;
    else if (errno() === ERRNO.EAGAIN) waitWritable(fd);
    else throw new TransportError("bench", "write", errnoText(errno()));
  }
}

const pollfd = new Uint8Array(8);

function waitWritable(fd: number): void {
  const view = new DataView(pollfd.buffer);
  view.setInt32(0, fd, true);
  view.setInt16(4, POLLOUT, true);
  libc().poll(pollfd, 1n, 1000);
}

interface Sample {
  readonly gigabytesPerSecond: number;
  readonly cpuNsPerPage: number;
}

/** @throws {TransportError} socat cannot be had, or ends. */
export async function benchWritev(context: BenchContext): Promise<BenchExperiment> {
  const { quick, signal } = context;
  const socat = await ensureTool("socat", { signal });
  const sizes = quick ? QUICK_SIZES : SIZES;
  const rounds = context.rounds ?? (quick ? QUICK_ROUNDS : ROUNDS);
  const sampleBytes = quick ? QUICK_SAMPLE_BYTES : SAMPLE_BYTES;
  const memory = new Uint8Array(MEMORY_BYTES);
  for (let at = 0; at < memory.length; at += 65536) {
    crypto.getRandomValues(memory.subarray(at, at + 65536));
  }
  using work = new WorkFolder();
  const reactor = new Reactor();
  const charts: BenchChart[] = [];
  const series: BenchSeries[] = [];
  const steps = 2 * sizes.length;
  let step = 0;
  try {
    for (const kind of ["TCP", "Unix"] as const) {
      await using sink = await Sink.open(kind, socat, work.path, reactor, signal);
      const speed = new Map<string, [number, number][]>();
      const cpu = new Map<string, [number, number][]>();
      for (const pages of sizes) {
        context.progress("writev", step++, steps, `${kind}, ${pages} pages`);
        // Lets signals through: nothing else here waits.
        await delay(0);
        signal.throwIfAborted();
        const samples = measure(sink.fd, memory, pages, rounds, sampleBytes);
        for (const [name, of] of samples) {
          const at = (value: (sample: Sample) => number): [number, number] => [
            pages,
            median(of.map(value)),
          ];
          const put = (into: typeof speed, point: [number, number]) =>
            into.set(name, [...into.get(name) ?? [], point]);
          put(speed, at(({ gigabytesPerSecond }) => gigabytesPerSecond));
          put(cpu, at(({ cpuNsPerPage }) => cpuNsPerPage));
        }
        if (pages === TOLD_PAGES) series.push(...gains(kind, samples));
      }
      const x = { name: "transaction", unit: "pages", scale: "log" } as const;
      const curves = (of: typeof speed) => [...of].map(([name, points]) => ({ name, points }));
      charts.push(
        { name: `${kind}, speed`, x, y: { name: "speed", unit: "GB/s" }, curves: curves(speed) },
        {
          name: `${kind}, sender's CPU time`,
          x,
          y: { name: "CPU time", unit: "ns/page" },
          curves: curves(cpu),
        },
      );
    }
  } finally {
    reactor.close();
  }
  return {
    name: "writev",
    about: "Transactions of scattered pages to a socket: copied into a buffer, or gathered",
    conditions: { pages: `${PAGE_BYTES} B of ${MEMORY_BYTES / 2 ** 20} MiB`, reader: "socat" },
    series,
    charts,
    notes: [`series: ${TOLD_PAGES} pages; above 1× gathering is better`],
    cannotShow: [
      "a network card, which can take pages without the copy that loopback makes in the kernel",
    ],
  };
}

function gains(kind: string, samples: ReadonlyMap<string, readonly Sample[]>): BenchSeries[] {
  const of = (name: string, value: (sample: Sample) => number) => samples.get(name)!.map(value);
  return [COPY_ALL, COPY_CHUNKS].flatMap((other) => [{
    name: `${kind}: speed, gather / ${other}`,
    unit: "×",
    samples: pairedRatios(
      of(GATHER, (sample) => sample.gigabytesPerSecond),
      of(other, (sample) => sample.gigabytesPerSecond),
    ),
  }, {
    name: `${kind}: CPU time, ${other} / gather`,
    unit: "×",
    samples: pairedRatios(
      of(other, (sample) => sample.cpuNsPerPage),
      of(GATHER, (sample) => sample.cpuNsPerPage),
    ),
  }]);
}

function measure(
  fd: number,
  memory: Uint8Array,
  pages: number,
  rounds: number,
  sampleBytes: number,
): Map<string, Sample[]> {
  const ways = writeWays();
  const samples = new Map(ways.map(({ name }) => [name, [] as Sample[]]));
  const count = Math.max(1, Math.round(sampleBytes / (pages * PAGE_BYTES)));
  // Enough transactions that none is still in a cache when its turn comes again.
  const transactions = Array.from(
    { length: Math.min(count, Math.ceil(16_384 / pages)) },
    () => scattered(memory, pages),
  );
  // Round 0 warms up, and does not count.
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < ways.length; turn++) {
      const { name, send } = ways[(turn + round) % ways.length];
      const cpuBefore = process.cpuUsage();
      const begun = performance.now();
      for (let i = 0; i < count; i++) send(fd, transactions[i % transactions.length]);
      const seconds = (performance.now() - begun) / 1000;
      const { user, system } = process.cpuUsage(cpuBefore);
      if (round === 0) continue;
      samples.get(name)!.push({
        gigabytesPerSecond: count * pages * PAGE_BYTES / 1e9 / seconds,
        cpuNsPerPage: (user + system) * 1000 / (count * pages),
      });
    }
  }
  return samples;
}

/** A transaction's pieces: a header and a page at a random place, `pages` times. */
export function scattered(memory: Uint8Array, pages: number): Uint8Array[] {
  const headers = new Uint8Array(pages * HEADER_BYTES).fill(1);
  const places = memory.length / PAGE_BYTES;
  return Array.from({ length: pages }, (_, i) => {
    const at = Math.floor(Math.random() * places) * PAGE_BYTES;
    return [
      headers.subarray(i * HEADER_BYTES, (i + 1) * HEADER_BYTES),
      memory.subarray(at, at + PAGE_BYTES),
    ];
  }).flat();
}

/** A socat that discards everything, and our end of the connection to it. */
class Sink implements AsyncDisposable {
  private constructor(
    readonly fd: number,
    private readonly child: Deno.ChildProcess,
    private readonly forget: () => void,
  ) {}

  static async open(
    kind: "TCP" | "Unix",
    socat: string,
    folder: string,
    reactor: Reactor,
    signal: AbortSignal,
  ): Promise<Sink> {
    const path = `${folder}/sink`;
    const port = freePort();
    const listen = kind === "Unix"
      ? `UNIX-LISTEN:${path}`
      : `TCP4-LISTEN:${port},bind=127.0.0.1,reuseaddr`;
    const child = new Deno.Command(socat, {
      args: ["-u", "-b", "262144", listen, "OPEN:/dev/null"],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const forget = atExit(() => endQuietly(child));
    const address = kind === "Unix"
      ? { kind: "unix", path, text: path } as const
      : { kind: "tcp", host: "127.0.0.1", port, text: `127.0.0.1:${port}` } as const;
    for (let attempt = 0;; attempt++) {
      try {
        const fd = await reactor.during(connectSocket(address, reactor, 1000, signal), signal);
        return new Sink(fd, child, forget);
      } catch (error) {
        if (attempt < 100 && !signal.aborted) {
          await delay(20);
          continue;
        }
        endQuietly(child);
        forget();
        throw error;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    libc().close(this.fd);
    endQuietly(this.child);
    await this.child.status;
    this.forget();
  }
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}
