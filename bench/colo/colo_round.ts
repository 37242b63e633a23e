/** A measurement of COLO: a VM is kept in some way, and its checkpoints are counted. */
import { QemuError, TransportError } from "../../lib/errors.ts";
import type { SenderStatus } from "../../lib/control/sender_status.ts";
import type { QmpClient } from "../../lib/host/vm/qmp_client.ts";
import { cpuMsOf } from "../../lib/lab/vms/process_cpu.ts";
import { memoryOf } from "../../lib/lab/vms/process_memory.ts";
import type { StopWatch } from "../../lib/lab/vms/stop_watch.ts";
import {
  type BareSetup,
  type ColoSetup,
  type ColoVm,
  type pairedVm,
  type ProtectedSetup,
  protectedVm,
  sentVm,
  type unkeptVm,
} from "./colo_vm.ts";
import { delay } from "../../lib/host/system/delay.ts";

/** Checkpoints by QEMU's own STOP and RESUME events. */
export interface Checkpoints {
  readonly count: number;
  readonly perSecond: number;
  /** STOP to RESUME, in ms: how long the guest stands still. */
  readonly stoppedMs: readonly number[];
  /** RESUME to the next STOP, in ms. */
  readonly runningMs: readonly number[];
}

/** The result, with kemari's own status. */
export interface KemariRound extends Checkpoints {
  readonly sender: SenderStatus;
  /** Whether QEMU describes its device state at every checkpoint. */
  readonly described: boolean;
  /** CPU time of kemari's ends, in ms per checkpoint. */
  readonly senderCpuMs: number;
  readonly receiverCpuMs: number;
}

/** QEMU's own timer, in rounds where each checkpoint is followed by a request for the next. */
export const BACK_TO_BACK_MS = 1000;
/** Warm-up before the count: the first checkpoints are larger, and code gets compiled. */
const WARM_UP_SECONDS = 1.5;
const SUPPRESS_VMDESC = { path: "/machine", property: "suppress-vmdesc" };

/** Checkpoints of a VM that `kemari protect` keeps, back to back. */
export async function protectRound(setup: ProtectedSetup, seconds: number): Promise<KemariRound> {
  await using stack = new AsyncDisposableStack();
  return await kemariRound(await protectedVm(setup, stack), seconds, setup.signal);
}

/** The same of a QEMU that migrates to `kemari send`. */
export async function sendRound(setup: ColoSetup, seconds: number): Promise<KemariRound> {
  await using stack = new AsyncDisposableStack();
  return await kemariRound(await sentVm(setup, stack), seconds, setup.signal);
}

/** The same of QEMU's own pair, or of a QEMU whose stand-in for the secondary answers at once. */
export async function bareRound(
  start: typeof pairedVm | typeof unkeptVm,
  setup: BareSetup,
  seconds: number,
): Promise<Checkpoints> {
  await using stack = new AsyncDisposableStack();
  const { stops } = await start(setup, stack);
  return await measureFor(stops, seconds, setup.signal);
}

async function kemariRound(
  { stops, ends }: ColoVm,
  seconds: number,
  signal: AbortSignal,
): Promise<KemariRound> {
  const { senderPid, receiverPid, status } = ends!;
  let before: number[] = [];
  const checkpoints = await measureFor(stops, seconds, signal, () => {
    before = [cpuMsOf(senderPid), cpuMsOf(receiverPid)];
  });
  const after = [cpuMsOf(senderPid), cpuMsOf(receiverPid)];
  return {
    ...checkpoints,
    sender: await status(),
    described: await isDescribed(stops.client),
    senderCpuMs: (after[0] - before[0]) / checkpoints.count,
    receiverCpuMs: (after[1] - before[1]) / checkpoints.count,
  };
}

/** A QEMU without the property always describes its state. */
async function isDescribed(client: QmpClient): Promise<boolean> {
  try {
    return await client.execute("qom-get", SUPPRESS_VMDESC) !== true;
  } catch (error) {
    if (error instanceof QemuError) return true;
    throw error;
  }
}

/**
 * Requests checkpoints back to back, and counts them after the warm-up.
 *
 * @param begun Called when the count begins.
 * @throws {TransportError} No checkpoint is made.
 */
async function measureFor(
  stops: StopWatch,
  seconds: number,
  signal: AbortSignal,
  begun: () => void = () => {},
): Promise<Checkpoints> {
  stops.askBackToBack(BACK_TO_BACK_MS);
  await delay(1000 * WARM_UP_SECONDS * Math.min(1, seconds), signal);
  begun();
  const fromMs = Date.now();
  await delay(seconds * 1000, signal);
  return checkpointsOf(stops, fromMs, Date.now());
}

/** Checkpoints, and the memory that QEMU has kept for each. */
export interface KeptMemory extends Checkpoints {
  /** Growth of QEMU's anonymous memory per checkpoint, in bytes. */
  readonly keptBytes: number;
}

const COUNT_POLL_MS = 20;

/**
 * Counts up to a number of checkpoints.
 *
 * @param limitSeconds After this time a smaller number is enough.
 */
export async function measureMemory(
  { vm, stops }: ColoVm,
  count: number,
  limitSeconds: number,
  signal: AbortSignal,
): Promise<KeptMemory> {
  const from = stops.count;
  const fromMs = Date.now();
  const before = memoryOf(vm.pid).anonymous;
  while (stops.count - from < count && Date.now() - fromMs < limitSeconds * 1000) {
    await delay(COUNT_POLL_MS, signal);
  }
  const counted = stops.count - from;
  const after = memoryOf(vm.pid).anonymous;
  const checkpoints = checkpointsOf(stops, fromMs, Date.now());
  return { ...checkpoints, keptBytes: (after - before) / counted };
}

function checkpointsOf(stops: StopWatch, fromMs: number, toMs: number): Checkpoints {
  const these = stops.between(fromMs, toMs);
  if (these.length === 0) {
    throw new TransportError(stops.client.path, "read", "QEMU makes no checkpoints any more");
  }
  return {
    count: these.length,
    perSecond: these.length / (toMs - fromMs) * 1000,
    stoppedMs: these.map(({ durationMs }) => durationMs),
    runningMs: these.slice(1).map(({ atMs }, i) => atMs - these[i].atMs - these[i].durationMs),
  };
}
