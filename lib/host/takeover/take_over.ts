/** The takeover, from the decision to a VM that runs here: fence, finish, load, run. */
import { getLogger } from "@logtape/logtape";
import { planTakeover, type TakeoverPlan } from "../../decisions/takeover_plan.ts";
import { runStateOf } from "../../qemu/devices/global_state.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import { type StreamConsumer, writeToCommand, writeToStdout } from "./write_replica.ts";
import { fence, isFence } from "./fence.ts";
import { startCold } from "./start_cold.ts";
import { formatBytes } from "../../units.ts";
import type { Reactor } from "../system/reactor.ts";
import type { ReplaySettings, SecondaryTapDevices } from "../taps/secondary_tap_devices.ts";
import type { ReplicaHome } from "../home/replica_home.ts";
import type { ProgressLine } from "../system/progress_line.ts";
import type { Standby } from "./standby.ts";
import type { TakeoverClock } from "./takeover_clock.ts";

const log = getLogger(["kemari", "recv"]);

/** The parts of `recv` that a takeover uses. */
interface TakeoverParts {
  readonly settings: {
    readonly fence?: string;
    readonly fenceTimeoutMs: number;
    readonly exec?: string;
    readonly standby?: string;
    readonly control?: string;
    readonly replay: ReplaySettings;
  };
  readonly replica: Replica;
  readonly home: ReplicaHome;
  readonly taps: SecondaryTapDevices;
  readonly standby: Standby | undefined;
  readonly reactor: Reactor;
  readonly progress: ProgressLine;
}

/**
 * Takes the VM over.
 *
 * Never may two VMs run: the primary is fenced first, and a standby that did not take the state is
 * known to be dead before another QEMU gets the state.
 *
 * @param clock Notes when each phase is over, and the mode.
 * @returns The QEMU or command that has the VM; `undefined` if the state went to stdout.
 * @throws {RanAndEnded} if the VM may have run and has ended: its replica is lost.
 * @throws {KemariError} if the takeover fails; the replica is as last committed.
 */
export async function takeOver(
  parts: TakeoverParts,
  clock: TakeoverClock,
  signal: AbortSignal,
): Promise<StreamConsumer | undefined> {
  const { settings, home, taps } = parts;
  const plan = planTakeover(clock.cause, isFence(settings.fence));
  clock.again("fenced", "applied", "loaded", "running");
  // The primary is not fenced for a VM that cannot go on here.
  await taps.prepare(signal);
  if (plan.fences) await fencePrimary(parts, signal);
  clock.over("fenced");
  await taps.activate(settings.replay, signal);
  home.give();
  clock.over("applied");
  return await loadWarm(parts, plan, clock, signal) ?? await loadCold(parts, plan, clock, signal);
}

async function fencePrimary({ settings, reactor }: TakeoverParts, signal: AbortSignal) {
  const say = (line: string) => log.info("fence: {line}", { line });
  const mayBeAskedAgain = settings.control !== undefined;
  const fencing = fence(settings.fence!, settings.fenceTimeoutMs, signal, say, mayBeAskedAgain);
  await reactor.during(fencing, signal);
}

/** @returns The standby, which has the VM; `undefined` if there is no standby, or none any more. */
async function loadWarm(
  { standby, replica, reactor }: TakeoverParts,
  { runsAlways }: TakeoverPlan,
  clock: TakeoverClock,
  signal: AbortSignal,
): Promise<StreamConsumer | undefined> {
  if (standby === undefined) return undefined;
  clock.mode = "warm";
  const runs = willRun(replica, runsAlways);
  const warm = await reactor.during(standby.activate(replica, runs), signal);
  if (warm === undefined) return undefined;
  clock.over("loaded", warm.loadedAt);
  if (runs) clock.over("running", warm.runningAt);
  return warm;
}

/** Whether the loaded VM is to run; a VM that was paused stays paused. */
function willRun({ machineRecord }: Replica, runsAlways: boolean): boolean {
  return runsAlways || runStateOf(machineRecord!.device) !== "paused";
}

/** @returns The command that has the VM; `undefined` if the state went to stdout. */
async function loadCold(
  { settings, replica, reactor, progress }: TakeoverParts,
  { runsAlways }: TakeoverPlan,
  clock: TakeoverClock,
  signal: AbortSignal,
): Promise<StreamConsumer | undefined> {
  clock.mode = "cold";
  // A QEMU that takes the whole stream acts on the run state in the stream.
  if (runsAlways) replica.letRun();
  const onProgress = (bytes: number) => {
    if (progress.isShown) progress.set(`activating, ${formatBytes(bytes)} to QEMU`);
  };
  const runs = willRun(replica, runsAlways);
  const onGiven = (isGiven: boolean) => clock.isGiven = isGiven && runs;
  // A command that nobody waits for any more must not get the VM.
  const abandoned = new AbortController();
  const either = AbortSignal.any([signal, abandoned.signal]);
  const during = <T>(giving: Promise<T>) =>
    reactor.during(giving, signal).catch((error) => {
      abandoned.abort(error);
      throw error;
    });
  if (settings.exec !== undefined) {
    const { exec } = settings;
    const consumer = await during(
      writeToCommand(replica, "--exec", exec, either, onProgress, onGiven),
    );
    clock.over("loaded");
    return consumer;
  }
  if (settings.standby !== undefined) {
    const cold = await during(startCold(replica, settings.standby, either, onProgress, onGiven));
    clock.over("loaded", cold.loadedAt);
    clock.over("running", cold.runningAt);
    return cold;
  }
  await writeToStdout(replica, reactor, signal, onProgress, onGiven);
  clock.over("loaded");
  return undefined;
}
