/**
 * `kemari bench stream --key`: what a link's encryption costs a plain stream, in time and at either
 * end's processor; plain and with a key by turns, each once in a round.
 */
import { makeKeyFile } from "../lib/host/keygen.ts";
import { kemariProgram } from "../lib/lab/program/kemari_program.ts";
import { WorkFolder } from "../lib/lab/program/work_folder.ts";
import type { BenchExperiment } from "../lib/report/bench_result.ts";
import { pairedRatios } from "../lib/report/bench_statistics.ts";
import type { BenchContext } from "./bench_context.ts";
import { plainStreamShape, writePlainStream } from "./plain_stream.ts";
import { kemariEnds, runTransfer, sharedMemoryHas, type Transfer } from "./transfer.ts";

const RAM_BYTES = 2 ** 30;
const QUICK_RAM_BYTES = 2 ** 29;
const ROUNDS = 7;
const QUICK_ROUNDS = 4;
/** Either is enough. */
const TARGET_GB_S = 0.9;
const TARGET_RATIO = 0.6;

/** @throws {TransportError} A transfer fails. */
export async function benchStreamKey(context: BenchContext): Promise<BenchExperiment> {
  const program = kemariProgram();
  const ramBytes = context.quick ? QUICK_RAM_BYTES : RAM_BYTES;
  const rounds = context.rounds ?? (context.quick ? QUICK_ROUNDS : ROUNDS);
  const inMemory = await sharedMemoryHas(2 * ramBytes);
  using folder = new WorkFolder(inMemory ? "/dev/shm" : undefined);
  const file = `${folder.path}/stream`;
  const key = `${folder.path}/key`;
  makeKeyFile(key, "bench");
  context.say(`stream: writing ${ramBytes / 2 ** 20} MiB of random pages`);
  const fileBytes = await writePlainStream(file, plainStreamShape(ramBytes), context.signal);
  const { command } = program;
  const ways = [
    { ends: kemariEnds(command, file, context.signal), transfers: [] as Transfer[] },
    {
      ends: kemariEnds(command, file, context.signal, ["--key", key]),
      transfers: [] as Transfer[],
    },
  ];
  // Round 0 brings programs and file into memory, and does not count.
  for (let round = 0; round <= rounds; round++) {
    for (let turn = 0; turn < ways.length; turn++) {
      const what = round === 0 ? "warming up" : `round ${round} of ${rounds}`;
      context.progress("stream", round * 2 + turn, 2 * (rounds + 1), what);
      const { ends, transfers } = ways[(turn + round) % ways.length];
      const transfer = await runTransfer(ends, ramBytes, context.signal);
      if (round > 0) transfers.push(transfer);
    }
  }
  const [plain, encrypted] = ways.map(({ transfers }) => transfers);
  const speeds = (of: readonly Transfer[]) => of.map(({ seconds }) => fileBytes / 1e9 / seconds);
  const cpu = (of: readonly Transfer[], end: "senderCpuMs" | "receiverCpuMs") =>
    of.map((transfer) => transfer[end] * 1000 / (fileBytes / 1e6));
  return {
    name: "stream",
    about: `A plain stream of ${(fileBytes / 1e6).toFixed(0)} MB with random pages, ` +
      "file → send → loopback TCP → recv → /dev/null, plain and with a key by turns",
    conditions: { stream: `${(fileBytes / 1e6).toFixed(0)} MB`, link: "loopback TCP" },
    series: [
      { name: "plain", unit: "GB/s", samples: speeds(plain) },
      {
        name: "with a key",
        unit: "GB/s",
        samples: speeds(encrypted),
        target: { kind: "at-least", value: TARGET_GB_S },
      },
      {
        name: "with a key / plain",
        unit: "×",
        samples: pairedRatios(speeds(encrypted), speeds(plain)),
        target: { kind: "at-least", value: TARGET_RATIO },
      },
      { name: "plain: send's CPU a megabyte", unit: "µs", samples: cpu(plain, "senderCpuMs") },
      {
        name: "with a key: send's CPU a megabyte",
        unit: "µs",
        samples: cpu(encrypted, "senderCpuMs"),
      },
      { name: "plain: recv's CPU a megabyte", unit: "µs", samples: cpu(plain, "receiverCpuMs") },
      {
        name: "with a key: recv's CPU a megabyte",
        unit: "µs",
        samples: cpu(encrypted, "receiverCpuMs"),
      },
    ],
    notes: [
      `kemari is ${program.about}`,
      "of the two targets either is enough; CPU is user and system time from the process's start to " +
      "its end, its start of some 100 ms included",
    ],
    cannotShow: ["a network: both ends share the cores of one machine and its memory bandwidth"],
  };
}
