import { getLogger } from "@logtape/logtape";
import { TransportError } from "../../errors.ts";
import { enableSnapshots, queryStatus, resumeVm } from "../../qmp/migration.ts";
import { libc } from "../system/libc.ts";
import type { ProtectContext } from "./protect_context.ts";
import { failIfFailed } from "../vm/migration_channel.ts";
import { leaveAsleep } from "./protect_colo.ts";
import { saveSettings } from "../vm/saved_settings.ts";
import { PAUSED } from "../vm/vm_end_words.ts";
import { GuestSleeps, VmEnded } from "../vm/vm_watch.ts";
import { delay } from "../system/delay.ts";

const log = getLogger(["kemari", "protect"]);

const POLL_MS = 2;
const PAUSED_POLL_MS = 100;

/**
 * Protects by one whole migration after another, for a QEMU without COLO. Each is one transaction;
 * pages that the replica has are left out.
 *
 * The VM runs while its RAM is read (except under tcg, see `StillVm`), and stands still for the
 * last part; with `--commit sync` until the secondary has the snapshot.
 *
 * @throws when either side is lost; there is no other end.
 */
export async function protectBySnapshots(context: ProtectContext): Promise<never> {
  const { reactor, settings, support, qmp, watch, link, trigger, still, channel, signal } = context;
  saveSettings(context.folder, support);
  await reactor.during(qmp.runAll(enableSnapshots(support)), signal);
  const stopMeasuring = measurePauses(context);
  const unfollow = watch.follow({
    stopped: () => void (!still.isHeld && watch.lookWhyStopped()),
    asleep: () => leaveAsleep(context),
  });
  try {
    for (let round = 1;; round++) await takeSnapshot(round);
  } finally {
    unfollow();
    stopMeasuring();
  }

  async function takeSnapshot(round: number): Promise<void> {
    await untilRunning();
    const begunAt = performance.now();
    const begin = still.start((givenUp) => channel.open(givenUp));
    const fd = await reactor.during(begin, signal);
    try {
      link.attach({ input: fd, output: -1, name: "QEMU" });
      await reactor.run(() => link.qemuEnded, signal);
    } finally {
      link.detach();
      libc().close(fd);
    }
    await reactor.during(completed(), signal);
    if (settings.commit === "sync") await reactor.run(() => link.inFlight === 0, signal);
    // A VM that somebody has stopped meanwhile stays stopped; the migration has hidden that state.
    const stopped = watch.standsStill;
    if (stopped === undefined) await reactor.during(qmp.run(resumeVm()), signal);
    else log.warn("the VM was stopped ({stopped}) while its snapshot was taken", { stopped });
    await reactor.run(() => link.inFlight === 0, signal);
    if (round === 1) log.info("protected: snapshots follow");
    // A VM that could not run meanwhile gets the whole interval.
    const sinceMs = still.isNeeded ? 0 : performance.now() - begunAt;
    const restMs = settings.syncIntervalMs - sinceMs;
    let rested = false;
    const cancel = reactor.after(restMs, () => rested = true);
    await reactor.run(() => rested || trigger.pending, signal);
    cancel();
  }

  /**
   * Waits while the VM is paused: the end of the next round must not let a VM run that somebody has
   * paused.
   */
  async function untilRunning(): Promise<void> {
    for (let told = false;; told = true) {
      const { status } = await reactor.during(qmp.run(queryStatus()), signal) as {
        status?: string;
      };
      if (status === "running") return;
      if (status === "suspended") throw new GuestSleeps();
      if (status === "shutdown") throw new VmEnded("shutdown");
      if (!told) log.info(PAUSED);
      await reactor.sleep(PAUSED_POLL_MS, signal);
    }
  }

  async function completed(): Promise<void> {
    for (;;) {
      const phase = await failIfFailed(qmp);
      if (phase === "completed") return;
      // The channel has ended: if the migration is not completing, somebody has cancelled it.
      if (phase === "cancelled" || phase === "none") {
        throw new TransportError("QEMU", "read", "a snapshot was given up", { party: "qemu" });
      }
      await delay(POLL_MS);
    }
  }
}

/** Measures how long the VM stands still, by QEMU's own STOP and RESUME, until ended. */
function measurePauses({ watch, link }: ProtectContext): () => void {
  let stoppedAt: number | undefined;
  return watch.follow({
    stopped: () => stoppedAt = performance.now(),
    resumed: () => {
      if (stoppedAt !== undefined) link.primary.pause.add(performance.now() - stoppedAt);
      stoppedAt = undefined;
    },
  });
}
