/** From the decision to a VM that runs here: fence, finish, load, run. */
import { getLogger } from "@logtape/logtape";
import { planTakeover } from "../../decisions/takeover.ts";
import { runStateOf } from "../../qemu/global_state.ts";
import type { Replica } from "../../replica/replica.ts";
import { type StreamConsumer, writeToCommand, writeToStdout } from "./write_replica.ts";
import { fence, isFence } from "./fence.ts";
import { startCold } from "./cold_start.ts";
import { formatBytes } from "../../units.ts";
import type { Reactor } from "../system/reactor.ts";
import type { ReplaySettings, ReplicaTapSet } from "../taps/replica_tap_set.ts";
import type { ReplicaHome } from "../home/replica_home.ts";
import type { ProgressLine } from "../system/progress_line.ts";
import type { Standby } from "./standby.ts";
import type { Takeover } from "./takeover_clock.ts";

const log = getLogger(["kemari", "recv"]);

/** What a takeover works with. */
export interface TakeoverParts {
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
  readonly taps: ReplicaTapSet;
  readonly standby: Standby | undefined;
  readonly reactor: Reactor;
  readonly progress: ProgressLine;
}

/**
 * Takes the VM over.
 *
 * Only one VM may ever run: the primary's is fenced first, and a standby that did not take the state
 * is known to be dead before another QEMU gets it.
 *
 * @returns The QEMU or command that has the VM; `undefined` where stdout got it.
 * @throws {RanAndEnded} if the VM may have run and has ended: its replica is lost.
 * @throws {KemariError} where it cannot be done; the replica is as last committed.
 */
export async function takeOver(
  parts: TakeoverParts,
  takeover: Takeover,
  signal: AbortSignal,
): Promise<StreamConsumer | undefined> {
  const { settings, replica, home, taps, standby, reactor, progress } = parts;
  const plan = planTakeover(takeover.cause, isFence(settings.fence));
  takeover.again("fenced", "applied", "loaded", "running");
  // Nobody is fenced for a VM that cannot go on here.
  await taps.prepare(signal);
  if (plan.fences && isFence(settings.fence)) {
    const say = (line: string) => log.info("fence: {line}", { line });
    const mayBeAskedAgain = settings.control !== undefined;
    const fencing = fence(settings.fence, settings.fenceTimeoutMs, signal, say, mayBeAskedAgain);
    await reactor.during(fencing, signal);
  }
  takeover.over("fenced");
  await taps.activate(settings.replay, signal);
  home.give();
  takeover.over("applied");
  if (standby !== undefined) {
    takeover.mode = "warm";
    const record = replica.machineRecord!;
    const runs = plan.runsAlways || runStateOf(record.device) !== "paused";
    const warm = await reactor.during(standby.activate(replica, runs), signal);
    if (warm !== undefined) {
      takeover.over("loaded", warm.loadedAt);
      if (runs) takeover.over("running", warm.runningAt);
      return warm;
    }
  }
  takeover.mode = "cold";
  // For a QEMU that goes by what is noted.
  if (plan.runsAlways) replica.letRun();
  const onProgress = (bytes: number) => {
    if (progress.isShown) progress.set(`activating, ${formatBytes(bytes)} to QEMU`);
  };
  if (settings.exec !== undefined) {
    const writing = writeToCommand(replica, "--exec", settings.exec, signal, onProgress);
    const consumer = await reactor.during(writing, signal);
    takeover.over("loaded");
    return consumer;
  }
  if (settings.standby !== undefined) {
    const starting = startCold(replica, settings.standby, signal, onProgress);
    const cold = await reactor.during(starting, signal);
    takeover.over("loaded", cold.loadedAt);
    takeover.over("running", cold.runningAt);
    return cold;
  }
  await writeToStdout(replica, reactor, signal, onProgress);
  takeover.over("loaded");
  return undefined;
}
