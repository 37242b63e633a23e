/** One measured stretch of COLO: a pair is started, set going, triggered back to back, and ended. */
import { KemariError, QemuError, TransportError } from "../lib/errors.ts";
import { askControl } from "../lib/host/control.ts";
import type { SenderStatus } from "../lib/host/end_status.ts";
import { QmpClient } from "../lib/host/qmp_client.ts";
import type { GuestImages } from "../fixtures/guest/guest.ts";
import { atExit, endQuietly, WorkFolder } from "./work_folder.ts";
import { migrateStopped } from "../fixtures/stopped_migration.ts";
import { startVm, type VmOptions } from "../fixtures/vm.ts";

/** What a stretch is of. */
export interface ColoSetup {
  readonly qemu: string;
  readonly guest: GuestImages;
  readonly memoryMiB: number;
  /** Devices beyond the serial ports. */
  readonly devices: readonly string[];
  /** What connects the two sides. */
  readonly link: "tcp" | "unix";
  readonly seconds: number;
  readonly signal: AbortSignal;
}

/** A stretch of checkpoints as QEMU's events tell it. */
interface Triggered {
  readonly syncs: number;
  readonly syncsPerSecond: number;
  /** QEMU's own STOP to RESUME, in ms: the guest stands still that long. */
  readonly stoppedMs: readonly number[];
  /** QEMU's RESUME to the next STOP, in ms. */
  readonly runningMs: readonly number[];
}

/** What came of it, with kemari's own account. */
export interface KemariRound extends Triggered {
  readonly sender: SenderStatus;
  /** CPU time of kemari's ends, in ms per sync. */
  readonly senderCpuMs: number;
  readonly receiverCpuMs: number;
}

/** Time between two checkpoints that nobody triggers: none within a stretch. */
const CHECKPOINT_DELAY_MS = 60_000;
/** Before the count begins: the first checkpoints are larger, and code gets compiled. */
const WARM_UP_MS = 1500;
const COLO_TIMEOUT_MS = 30_000;
/** Checkpoints follow each other in milliseconds. */
const SILENCE_MS = 10_000;

/**
 * QEMU → `exec:kemari send` → loopback → `kemari recv`, which is a process of its own.
 *
 * @param receiverArgs More options for `kemari recv`.
 */
export async function kemariRound(
  setup: ColoSetup,
  program: readonly string[],
  commit: "sync" | "async",
  receiverArgs: readonly string[] = [],
): Promise<KemariRound> {
  using work = new WorkFolder();
  const folder = work.path;
  const address = linkAddress(setup.link, folder);
  const receiver = new Deno.Command(program[0], {
    args: [...program.slice(1), "recv", address, "--control", `${folder}/recv`]
      .concat("--quiet", "--progress", "never", receiverArgs),
    stdin: "null",
    stdout: "null",
    // Its one message would be that the sender is gone, at the end.
    stderr: "null",
  }).spawn();
  const forget = atExit(() => endQuietly(receiver));
  try {
    await using vm = await startVm(vmOptions(setup, "primary"));
    await vm.ready();
    await exists(`${folder}/recv`, setup.signal);
    await using client = await QmpClient.connect(vm.qmpPath);
    await enableColo(client);
    const send = [...program, "send", address, "--control", `${folder}/send`]
      .concat("--stream", "colo", "--commit", commit, "--quiet", "--progress", "never");
    const command = `echo $$ > ${folder}/pid; exec ${send.map(quote).join(" ")}`;
    await migrateStopped(client, `exec:${command}`);
    await inColo(client, setup.signal);
    await triggerBackToBack(client, WARM_UP_MS / 1000, setup.signal);
    const sender = Number(Deno.readTextFileSync(`${folder}/pid`));
    const before = [cpuMs(sender), cpuMs(receiver.pid)];
    const round = await triggerBackToBack(client, setup.seconds, setup.signal);
    const after = [cpuMs(sender), cpuMs(receiver.pid)];
    const status = await askControl(`${folder}/send`, "status", setup.signal);
    return {
      ...round,
      sender: status as unknown as SenderStatus,
      senderCpuMs: (after[0] - before[0]) / round.syncs,
      receiverCpuMs: (after[1] - before[1]) / round.syncs,
    };
  } finally {
    endQuietly(receiver);
    await receiver.status;
    forget();
  }
}

/** Two QEMUs, as docs/system/qemu-colo.rst has them, without the parts for disks and network. */
export async function qemuRound(setup: ColoSetup): Promise<Triggered> {
  using work = new WorkFolder();
  const folder = work.path;
  const uri = linkAddress(setup.link, folder);
  await using primary = await startVm(vmOptions(setup, "primary"));
  await using secondary = await startVm({
    ...vmOptions(setup, "secondary"),
    incoming: "defer",
  });
  await primary.ready();
  await using client = await QmpClient.connect(primary.qmpPath);
  await using other = await QmpClient.connect(secondary.qmpPath);
  await enableColo(other);
  await other.execute("migrate-incoming", { uri });
  await enableColo(client);
  await migrateStopped(client, uri);
  await inColo(client, setup.signal);
  await triggerBackToBack(client, WARM_UP_MS / 1000, setup.signal);
  return await triggerBackToBack(client, setup.seconds, setup.signal);
}

/** An address that kemari and QEMU both understand, and that nobody uses. */
function linkAddress(link: ColoSetup["link"], folder: string): string {
  if (link === "unix") return `unix:${folder}/link`;
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return `tcp:127.0.0.1:${listener.addr.port}`;
}

function vmOptions(setup: ColoSetup, name: string): VmOptions {
  const { qemu, guest, memoryMiB, devices, signal } = setup;
  return { name, qemu, guest, memoryMiB, args: devices, signal };
}

/** Makes the next migration, of either side, a COLO one. */
export async function enableColo(
  client: QmpClient,
  checkpointDelayMs = CHECKPOINT_DELAY_MS,
): Promise<void> {
  await client.execute("migrate-set-capabilities", {
    capabilities: [
      { capability: "return-path", state: true },
      { capability: "x-colo", state: true },
    ],
  });
  await client.execute("migrate-set-parameters", {
    "max-bandwidth": 2 ** 40,
    "x-checkpoint-delay": checkpointDelayMs,
  });
}

/** Waits until the primary's first pass is over. */
export async function inColo(client: QmpClient, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + COLO_TIMEOUT_MS;
  for (;;) {
    signal.throwIfAborted();
    const { status, "error-desc": reason } = await client.execute("query-migrate") as {
      status: string;
      "error-desc"?: string;
    };
    if (status === "colo") return;
    if (status === "failed" || performance.now() > deadline) {
      const why = reason === undefined ? "" : `: ${reason}`;
      throw new QemuError("migrate", "GenericError", `no COLO: the migration is "${status}"${why}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * Triggers each checkpoint when QEMU says that the one before it is done (RESUME).
 *
 * A trigger sent while one is under way is lost now and then: QEMU's own pair then stands still
 * until its timer fires. Triggers without pause fight with the checkpoint for QEMU's main loop.
 */
async function triggerBackToBack(
  client: QmpClient,
  seconds: number,
  signal: AbortSignal,
): Promise<Triggered> {
  const stoppedMs: number[] = [];
  const runningMs: number[] = [];
  let stoppedAt = NaN;
  let resumedAt = NaN;
  const trigger = () =>
    client.execute("migrate-set-parameters", { "x-checkpoint-delay": CHECKPOINT_DELAY_MS });
  const events = client.events();
  // Without events the loop would wait for ever: then the connection is to end.
  let stuck = false;
  const giveUp = () => {
    stuck = true;
    void client.close();
  };
  const watchdog = setTimeout(giveUp, seconds * 1000 + SILENCE_MS);
  signal.addEventListener("abort", giveUp);
  const begun = performance.now();
  const end = begun + seconds * 1000;
  try {
    await trigger();
    for await (const event of events) {
      const at = event.timestampMs ?? NaN;
      if (event.name === "STOP") {
        stoppedAt = at;
        if (!Number.isNaN(resumedAt)) runningMs.push(at - resumedAt);
      } else if (event.name === "RESUME") {
        if (!Number.isNaN(stoppedAt)) stoppedMs.push(at - stoppedAt);
        resumedAt = at;
        if (performance.now() >= end) break;
        trigger().catch(ignoreClosed);
      }
    }
  } finally {
    clearTimeout(watchdog);
    signal.removeEventListener("abort", giveUp);
  }
  signal.throwIfAborted();
  const elapsed = (performance.now() - begun) / 1000;
  if (stuck || elapsed < seconds || stoppedMs.length === 0) {
    throw new TransportError(client.path, "read", "QEMU stopped answering between checkpoints");
  }
  const syncs = stoppedMs.length;
  return { syncs, syncsPerSecond: syncs / elapsed, stoppedMs, runningMs };
}

/** The connection ended with a trigger under way: whoever ended it knows. */
function ignoreClosed(error: unknown): void {
  if (!(error instanceof KemariError)) throw error;
}

async function exists(path: string, signal: AbortSignal): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt++) {
    signal.throwIfAborted();
    try {
      Deno.statSync(path);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  throw new TransportError(path, "listen", "kemari recv does not listen after 5 s");
}

/** User and system time of a process, ms; a clock tick is 10 ms on every Linux there is. */
function cpuMs(pid: number): number {
  try {
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return NaN;
  }
}

function quote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
