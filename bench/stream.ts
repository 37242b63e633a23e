/**
 * `kemari bench stream`: how fast a plain stream goes through both ends, against socat and a pipe.
 *
 * A file of random pages → `kemari send` → loopback TCP → `kemari recv` → /dev/null, the same file
 * through two socats, and through a pipe between two cats, which only copy. Time runs from the
 * start of the sending process to the end of both; the receiver listens beforehand. kemari's time
 * holds its start, the parsing, two checksums, the replica, and the composition of the whole stream
 * after the last byte; socat does none of these. A round runs each of them once, in rotating order,
 * and yields one ratio.
 *
 * Results (2 cores, 1 GiB):
 * - The receiver is the bottleneck, never the sender, which waits for most of the time: per GiB it
 *   takes 0.4–0.6 s to read the socket, 0.16 s to copy pages into their slots, 0.1 s for their
 *   first touch, 0.05 s for CRC-32, and 0.25–0.35 s to compose the stream after the last byte.
 * - First touch takes 0.1 s per GiB if the memory is available and 2.9 s if the hypervisor has
 *   taken it back: hence {@link warmMemory} before each run, for all competitors.
 * - socat's default buffer of 8 KiB halves its speed: socat with `-b 262144` is the second
 *   reference.
 * - The programs' start, 0.1 s, weighs more in `--quick`: its ratio is lower by a tenth or two.
 */
import { formatMegabytes } from "../lib/units.ts";
import { ensureTool } from "../lib/lab/provision/tools.ts";
import { TransportError } from "../lib/errors.ts";
import { pairedRatios } from "../lib/report/bench_statistics.ts";
import type { BenchExperiment } from "../lib/report/bench_result.ts";
import type { BenchContext } from "./bench_context.ts";
import { kemariProgram } from "../lib/lab/program/kemari_program.ts";
import { type Ends, kemariEnds, runTransfer, sharedMemoryHas, type Transfer } from "./transfer.ts";
import { plainStreamShape, writePlainStream } from "./plain_stream.ts";
import { WorkFolder } from "../lib/lab/program/work_folder.ts";
import { delay } from "../lib/host/system/delay.ts";

const RAM_BYTES = 2 ** 30;
const QUICK_RAM_BYTES = 2 ** 29;
const ROUNDS = 7;
const QUICK_ROUNDS = 4;
const PAGE_BYTES = 4096;

/** @throws {TransportError} socat is missing, or a transfer fails. */
export async function benchStream(context: BenchContext): Promise<BenchExperiment> {
  const socatPath = await ensureTool("socat", { signal: context.signal });
  const socatVersion = await versionOf(socatPath);
  const program = kemariProgram();
  const ramBytes = context.quick ? QUICK_RAM_BYTES : RAM_BYTES;
  const rounds = context.rounds ?? (context.quick ? QUICK_ROUNDS : ROUNDS);
  const inMemory = await sharedMemoryHas(2 * ramBytes);
  using folder = new WorkFolder(inMemory ? "/dev/shm" : undefined);
  const file = `${folder.path}/stream`;
  context.say(`stream: writing ${ramBytes / 2 ** 20} MiB of random pages`);
  const fileBytes = await writePlainStream(file, plainStreamShape(ramBytes), context.signal);
  const competitors = [
    kemariEnds(program.command, file, context.signal),
    socatEnds(socatPath, file, [], context.signal),
    socatEnds(socatPath, file, ["-b", "262144"], context.signal),
    pipeEnds(file, `${folder.path}/pipe`, context.signal),
  ];
  const samples: Transfer[][] = competitors.map(() => []);
  // Round 0 loads programs and file into memory, and does not count.
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < competitors.length; turn++) {
      context.progress(
        "stream",
        round * competitors.length + turn,
        (rounds + 1) * competitors.length,
        round === 0 ? "warming up" : `round ${round} of ${rounds}`,
      );
      const which = (turn + round) % competitors.length;
      const transfer = await runTransfer(competitors[which], ramBytes, context.signal);
      if (round > 0) samples[which].push(transfer);
    }
  }
  const [kemari, socat, socatLarge, pipe] = samples.map((transfers) =>
    transfers.map(({ seconds }) => fileBytes / 1e9 / seconds)
  );
  const perPage = samples.map((transfers) =>
    transfers.map(({ seconds }) => seconds * 1e9 / (ramBytes / PAGE_BYTES))
  );
  const peaks = (end: "senderPeakBytes" | "receiverPeakBytes") =>
    samples[0].map((transfer) => transfer[end] / 1e6);
  const receiverLimit = Math.round((ramBytes + 200e6) / 1e6);
  return {
    name: "stream",
    about: `A plain stream of ${formatMegabytes(fileBytes)} with random pages, ` +
      "file → send → loopback TCP → recv → /dev/null, process start to both ends' exit",
    conditions: { stream: `${formatMegabytes(fileBytes)}`, link: "loopback TCP" },
    series: [
      { name: "kemari", unit: "GB/s", samples: kemari },
      { name: "socat, its own 8 KiB buffer", unit: "GB/s", samples: socat },
      { name: "socat -b 262144", unit: "GB/s", samples: socatLarge },
      { name: "cat | cat", unit: "GB/s", samples: pipe },
      { name: "kemari, a page", unit: "ns", samples: perPage[0] },
      { name: "socat -b 262144, a page", unit: "ns", samples: perPage[2] },
      { name: "cat | cat, a page", unit: "ns", samples: perPage[3] },
      {
        name: "kemari / socat",
        unit: "×",
        samples: pairedRatios(kemari, socat),
        target: { kind: "at-least", value: 0.8 },
      },
      { name: "kemari / socat -b 262144", unit: "×", samples: pairedRatios(kemari, socatLarge) },
      { name: "kemari / cat | cat", unit: "×", samples: pairedRatios(kemari, pipe) },
      {
        name: "kemari send, peak memory",
        unit: "MB",
        samples: peaks("senderPeakBytes"),
        target: { kind: "at-most", value: 150 },
      },
      {
        name: "kemari recv, peak memory",
        unit: "MB",
        samples: peaks("receiverPeakBytes"),
        target: { kind: "at-most", value: receiverLimit },
      },
    ],
    notes: [
      `kemari is ${program.about}`,
      socatVersion,
      `receiver's target: ${formatMegabytes(ramBytes)} of RAM touched + 200 MB`,
    ],
    cannotShow: ["a network: both ends share the cores of one machine and its memory bandwidth"],
  };
}

function socatEnds(
  socat: string,
  file: string,
  options: readonly string[],
  signal: AbortSignal,
): Ends {
  const start = (args: readonly string[]) =>
    new Deno.Command(socat, {
      args: ["-u", ...options, ...args],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
      signal,
    }).spawn();
  return {
    async listen() {
      const port = freePort();
      const child = start([`TCP4-LISTEN:${port},bind=127.0.0.1,reuseaddr`, "OPEN:/dev/null"]);
      await listens(port, signal);
      return { child, target: `127.0.0.1:${port}` };
    },
    send: (target) => start([`OPEN:${file}`, `TCP4:${target}`]),
  };
}

/** Drains a pipe without using its data. */
function pipeEnds(file: string, path: string, signal: AbortSignal): Ends {
  const run = (script: string) =>
    new Deno.Command("/bin/sh", {
      args: ["-c", script, "sh", file, path],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
      signal,
    }).spawn();
  return {
    async listen() {
      await Deno.remove(path).catch(() => {});
      await new Deno.Command("mkfifo", { args: [path] }).output();
      return { child: run('exec cat < "$2" > /dev/null'), target: path };
    },
    send: () => run('exec cat < "$1" > "$2"'),
  };
}

function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

/** Waits for a listener without connecting to it: the listener accepts only one connection. */
async function listens(port: number, signal: AbortSignal): Promise<void> {
  const entry = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")} 00000000:0000 0A`;
  for (let attempt = 0; attempt < 500; attempt++) {
    signal.throwIfAborted();
    if (Deno.readTextFileSync("/proc/net/tcp").includes(entry)) return;
    await delay(10);
  }
  throw new TransportError(`127.0.0.1:${port}`, "listen", "socat does not listen after 5 s");
}

async function versionOf(socat: string): Promise<string> {
  const { stdout } = await new Deno.Command(socat, { args: ["-V"] }).output();
  const version = /socat version \S+/.exec(new TextDecoder().decode(stdout))?.[0];
  return version ?? "socat of unknown version";
}
