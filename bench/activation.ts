/**
 * `kemari bench activation`: from "the primary is fenced" to "the guest runs", warm against cold,
 * for a small guest and a large one; and how much the files that a warm standby needs cost per
 * sync.
 *
 * A guest is booted once, fills its memory, and its stream is recorded. For each takeover, a new
 * `kemari recv` gets that stream from `kemari send`, the sender is killed, and `kemari failover`
 * follows. Warm is `recv --standby`, with the times that recv reports itself. Cold is `recv --exec`
 * with the replica in memory; QEMU is asked every 2 ms whether the guest runs.
 */
import { ensureGuest } from "../lib/lab/guest/guest.ts";
import { ensureQemu } from "../lib/lab/provision/qemu.ts";
import { startVm, vmArguments, type VmOptions } from "../lib/lab/vms/vm.ts";
import { endAllVms, leaveSignalsToCaller } from "../lib/lab/vms/vm_cleanup.ts";
import { TransportError } from "../lib/errors.ts";
import { askFailover } from "../lib/host/system/ask_control.ts";
import { askReceiver } from "../lib/lab/program/ask_end.ts";
import type { ReceiverStatus } from "../lib/control/receiver_status.ts";
import { QmpClient } from "../lib/host/vm/qmp_client.ts";
import { quoteWord } from "../lib/host/takeover/standby_command.ts";
import type { BenchExperiment, BenchSeries } from "../lib/report/bench_result.ts";
import { pairedRatios, quantile } from "../lib/report/bench_statistics.ts";
import type { BenchContext } from "./bench_context.ts";
import { BACK_TO_BACK_MS, protectRound } from "./colo/colo_round.ts";
import type { ProtectedSetup } from "./colo/colo_vm.ts";
import { kemariProgram } from "../lib/lab/program/kemari_program.ts";
import { saveVm } from "../lib/lab/vms/save_vm.ts";
import { atExit, endQuietly, WorkFolder } from "../lib/lab/program/work_folder.ts";
import { delay } from "../lib/host/system/delay.ts";

/** The size of a guest whose takeovers are measured. */
interface GuestSize {
  readonly name: string;
  readonly memoryMiB: number;
  /** The part that is filled with nonzero bytes. */
  readonly touchedMiB: number;
}

const SMALL: GuestSize = { name: "512 MB", memoryMiB: 512, touchedMiB: 64 };
const LARGE: GuestSize = { name: "8 GB, 2 GB touched", memoryMiB: 8192, touchedMiB: 2048 };
const WARM = 20;
const COLD = 5;
const QUICK_WARM = 3;
const QUICK_COLD = 1;
const STORE_ROUNDS = 3;
const STORE_SECONDS = 4;
/** The goal for every takeover, whatever the guest's RAM. */
const TARGET_MS = 50;
const TARGET_COST = 0.95;
const WAIT_MS = 60_000;
const FILL_MS = 120_000;
const BLOCK_MIB = 16;

/** @throws {QemuError} QEMU 11.1 cannot be had. */
export async function benchActivation(context: BenchContext): Promise<BenchExperiment> {
  const { quick, signal } = context;
  leaveSignalsToCaller();
  atExit(endAllVms);
  const qemu = await ensureQemu("11.1", { signal });
  const guest = await ensureGuest({ signal });
  const { command: program, about } = kemariProgram();
  const series: BenchSeries[] = [];
  const report = (): BenchExperiment => ({
    name: "activation",
    about: "fenced → the guest runs: a warm standby against a cold start, TCG",
    conditions: {
      qemu: qemu.fullVersion,
      accelerator: "TCG",
      guest: `Linux ${guest.kernelVersion}`,
    },
    series: [...series],
    notes: [
      `kemari is ${about}`,
      "warm: device state and ROMs into a QEMU whose RAM is the replica's files in /dev/shm, by " +
      "recv's own clock; cold: the whole RAM through a pipe into a new QEMU",
      "store: COLO checkpoints of an idle 512 MB guest, back to back, with the replica in files and " +
      "in memory, in turn",
    ],
    cannotShow: ["two hosts: both ends share the cores of one machine"],
  });
  const warmRuns = quick ? QUICK_WARM : WARM;
  const coldRuns = quick ? QUICK_COLD : COLD;
  const measure = async (size: GuestSize) => {
    using work = new WorkFolder("/dev/shm");
    const options: VmOptions = {
      qemu: qemu.program,
      name: "guest",
      guest,
      memoryMiB: size.memoryMiB,
    };
    context.say(`activation: recording a guest of ${size.name}`);
    const stream = await record(options, size, work.path, signal);
    const takeovers = { program, stream, options, signal };
    const warm: number[] = [];
    for (let run = 0; run < warmRuns; run++) {
      context.progress("activation", run, warmRuns, `warm, ${size.name}`);
      warm.push(await warmTakeover(takeovers));
    }
    const cold: number[] = [];
    for (let run = 0; run < coldRuns; run++) {
      context.progress("activation", run, coldRuns, `cold, ${size.name}`);
      cold.push(await coldTakeover(takeovers));
    }
    series.push(
      { name: `warm, ${size.name}`, unit: "ms", samples: warm },
      {
        name: `warm, ${size.name}: p99`,
        unit: "ms",
        samples: [quantile(warm, 0.99)],
        target: { kind: "at-most", value: TARGET_MS },
      },
      { name: `cold, ${size.name}`, unit: "ms", samples: cold },
    );
    context.keep({ ...report(), partial: `after ${size.name}` });
  };
  await measure(SMALL);
  series.push(
    ...await storeCost(
      {
        qemu: qemu.program,
        guest,
        memoryMiB: 512,
        devices: ["-nic", "none"],
        link: "tcp",
        intervalMs: BACK_TO_BACK_MS,
        kemari: program,
        mode: "colo",
        commit: "async",
        signal,
      },
      quick ? 1 : STORE_SECONDS,
      quick ? 1 : STORE_ROUNDS,
      context,
    ),
  );
  context.keep({ ...report(), partial: "after the store's cost" });
  if (!quick) await measure(LARGE);
  return report();
}

/** Syncs a second and the guest's pause, with the replica in files and in memory. */
async function storeCost(
  setup: ProtectedSetup,
  seconds: number,
  rounds: number,
  context: BenchContext,
): Promise<BenchSeries[]> {
  const inMemory: Awaited<ReturnType<typeof protectRound>>[] = [];
  const inFiles: typeof inMemory = [];
  for (let round = 0; round < rounds; round++) {
    context.progress("activation", round, rounds, "cost of the file store");
    using work = new WorkFolder("/dev/shm");
    const recvOptions = ["--ram-dir", `${work.path}/ram`];
    const memory = async () => inMemory.push(await protectRound(setup, seconds));
    const file = async () => inFiles.push(await protectRound({ ...setup, recvOptions }, seconds));
    for (const step of round % 2 === 0 ? [memory, file] : [file, memory]) await step();
  }
  const rate = (of: typeof inMemory) => of.map(({ perSecond }) => perSecond);
  const pause = (of: typeof inMemory) => of.map(({ stoppedMs }) => quantile(stoppedMs, 0.99));
  const cpu = (of: typeof inMemory) => of.map(({ receiverCpuMs }) => receiverCpuMs);
  return [
    { name: "store in memory", unit: "syncs/s", samples: rate(inMemory) },
    { name: "store in files", unit: "syncs/s", samples: rate(inFiles) },
    {
      name: "store in files / in memory",
      unit: "×",
      samples: pairedRatios(rate(inFiles), rate(inMemory)),
      target: { kind: "at-least", value: TARGET_COST },
    },
    { name: "store in memory: guest stopped, p99", unit: "ms", samples: pause(inMemory) },
    { name: "store in files: guest stopped, p99", unit: "ms", samples: pause(inFiles) },
    { name: "store in memory: recv's CPU per sync", unit: "ms", samples: cpu(inMemory) },
    { name: "store in files: recv's CPU per sync", unit: "ms", samples: cpu(inFiles) },
  ];
}

/** Boots the guest, fills its memory, and writes its stream to a file. */
async function record(
  options: VmOptions,
  size: GuestSize,
  folder: string,
  signal: AbortSignal,
): Promise<string> {
  const path = `${folder}/stream`;
  await using vm = await startVm({ ...options, signal });
  await vm.ready();
  // Blocks of bytes that are not zeros, copied: making each anew takes minutes under TCG.
  const fill =
    `tr '\\0' x < /dev/zero | dd of=/mem/one bs=1M count=${BLOCK_MIB} iflag=fullblock; ` +
    `i=0; while [ $i -lt ${size.touchedMiB / BLOCK_MIB} ]; do cat /mem/one; i=$((i + 1)); done ` +
    "> /mem/touched";
  const { code, output } = await vm.run(fill, { timeoutMs: FILL_MS });
  if (code !== 0) {
    throw new TransportError("guest", "write", `its memory was not filled: ${output}`);
  }
  await using client = await QmpClient.connect(vm.qmpPath);
  await saveVm(client, path, signal);
  return path;
}

interface Takeovers {
  readonly program: readonly string[];
  readonly stream: string;
  readonly options: VmOptions;
  readonly signal: AbortSignal;
}

/** One warm takeover. @returns Milliseconds from fenced to running. */
async function warmTakeover(takeovers: Takeovers): Promise<number> {
  using work = new WorkFolder();
  const standby = ["--standby", commandOf(takeovers.options, work.path)];
  return await takeOverOnce(takeovers, work.path, standby, async (ask) => {
    const { takeover } = await ask(({ takeover }) => takeover?.runningMs != null);
    if (takeover!.mode !== "warm") {
      throw new TransportError("--standby", "write", "the takeover was a cold one");
    }
    return takeover!.runningMs! - takeover!.fencedMs!;
  });
}

/** One cold takeover, by the clock of this process. */
async function coldTakeover(takeovers: Takeovers): Promise<number> {
  using work = new WorkFolder();
  const exec = `${commandOf(takeovers.options, work.path)} -incoming fd:0 >&2`;
  return await takeOverOnce(takeovers, work.path, ["--exec", exec], async (ask) => {
    let client: QmpClient | undefined;
    for (const begun = performance.now(); performance.now() - begun < WAIT_MS;) {
      client ??= await QmpClient.connect(`${work.path}/qmp`).catch(() => undefined);
      const answer = await client?.execute("query-status") as { running?: boolean } | undefined;
      if (answer?.running) break;
      await delay(2);
    }
    const runningAt = Date.now();
    await client?.close();
    const { takeover } = await ask(({ takeover }) => takeover?.loadedMs != null);
    return runningAt - (Date.parse(takeover!.detectedAt) + takeover!.fencedMs!);
  });
}

type Ask = (accept: (status: ReceiverStatus) => boolean) => Promise<ReceiverStatus>;

/** Receives the stream, loses the sender, takes over, and ends everything. */
async function takeOverOnce(
  { program, stream, signal }: Takeovers,
  folder: string,
  how: readonly string[],
  measure: (ask: Ask) => Promise<number>,
): Promise<number> {
  // QEMU does not start unless somebody listens for its serial ports.
  using _console = Deno.listen({ transport: "unix", path: `${folder}/console` });
  using _agent = Deno.listen({ transport: "unix", path: `${folder}/agent` });
  const control = `${folder}/control`;
  const quiet = ["--quiet", "--progress", "never"];
  const spawn = (command: string, args: readonly string[]) =>
    new Deno.Command(command, { args: [...args], stdin: "null", stdout: "null", stderr: "null" })
      .spawn();
  const recv = spawn(program[0], [
    ...program.slice(1),
    ...["recv", `unix:${folder}/link`, "--control", control, ...how, ...quiet],
  ]);
  const ask: Ask = async (accept) => {
    for (const begun = performance.now(); performance.now() - begun < WAIT_MS;) {
      signal.throwIfAborted();
      try {
        const status = await askReceiver(control, signal);
        if (accept(status)) return status;
      } catch {
        signal.throwIfAborted();
      }
      await delay(10);
    }
    throw new TransportError(control, "read", "recv does not get on");
  };
  let send: Deno.ChildProcess | undefined;
  const forget = atExit(() => {
    endQuietly(recv);
    if (send !== undefined) endQuietly(send);
  });
  try {
    await ask(() => true);
    const words = [...program, "send", `unix:${folder}/link`, ...quiet].map(quoteWord).join(" ");
    // The end of the stream would be a handover, so the pipe stays open.
    const pipe = `(cat ${quoteWord(stream)}; exec sleep 600) | exec ${words}`;
    send = spawn("setsid", ["/bin/sh", "-c", pipe]);
    await ask(({ lastCommitted, standby }) => {
      return lastCommitted > 0 && (standby == null || standby.state === "ready");
    });
    endGroup(send.pid);
    await send.status;
    await ask(({ state }) => state === "waiting");
    const failover = askFailover(control, { signal });
    const result = await measure(ask);
    await failover;
    return result;
  } finally {
    if (send !== undefined) endGroup(send.pid);
    // recv ends its VM, and removes its files.
    try {
      recv.kill("SIGTERM");
    } catch {
      // The process has ended already.
    }
    await recv.status;
    await send?.status;
    forget();
  }
}

function commandOf(options: VmOptions, folder: string): string {
  return [options.qemu, ...vmArguments(options, folder)].map(quoteWord).join(" ");
}

function endGroup(pid: number): void {
  try {
    Deno.kill(-pid, "SIGKILL");
  } catch {
    // No process of the group is left.
  }
}
