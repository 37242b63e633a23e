import { getLogger } from "@logtape/logtape";
import { QemuError, StateError } from "../../errors.ts";
import { enableColo } from "../../qmp/migration.ts";
import { tickingIntervalMs } from "../../qmp/guest_timer.ts";
import { setSuppressVmdesc } from "../../qmp/migration_settings.ts";
import type { MigrationSupport } from "../../qmp/migration_support.ts";
import { wantsReturnPath } from "../../qmp/qemu_texts.ts";
import { libc } from "../system/libc.ts";
import { failIfFailed } from "../vm/migration_channel.ts";
import type { ProtectContext } from "./protect_context.ts";
import { readGuestTimer } from "../vm/probe_qemu.ts";
import type { QmpClient } from "../vm/qmp_client.ts";
import { saveSettings } from "../vm/saved_settings.ts";
import { PAUSED } from "../vm/vm_end_words.ts";
import { GuestSleeps } from "../vm/vm_watch.ts";
import { delay } from "../system/delay.ts";

const log = getLogger(["kemari", "protect"]);

/** How often QEMU is asked whether its migration has failed. */
const POLL_MS = 250;
/** After this time there have been enough checkpoints to know how long they take. */
const TIMER_LOOK_MS = 2000;
/** Two intervals and this time without a checkpoint are too long. */
const INTERVAL_SLACK_MS = 200;

/**
 * Protects by COLO: one endless migration over a Unix socket.
 *
 * @throws when either side is lost; there is no other end.
 */
export async function protectByColo(context: ProtectContext): Promise<never> {
  const { reactor, watch, link, still, channel, signal } = context;
  await reactor.during(prepareQemu(context), signal);
  if (watch.isAsleep) throw new GuestSleeps();
  // A small VM may be in COLO before its channel is attached here.
  let isInColo = false;
  const unfollow = watch.follow({
    asleep: () => leaveAsleep(context),
    inColo: () => {
      isInColo = true;
      link.enteredColo();
    },
  });
  let stopWatching: (() => void) | undefined;
  let isOver = false;
  let cancelTimer: (() => void) | undefined;
  link.onEvent = (event) => {
    if (event.kind === "colo") {
      log.info("protected: checkpoints follow");
      stopWatching ??= watchInterval(context);
      cancelTimer ??= reactor.after(TIMER_LOOK_MS, () => {
        mindGuestTimer(context, () => isOver).catch((error) => {
          if (!isOver) reactor.fail(error);
        });
      });
    }
    if (event.kind === "paused") log.info(PAUSED);
  };
  let fd = -1;
  let stopPolling = () => {};
  try {
    fd = await reactor.during(still.start((givenUp) => channel.open(givenUp)), signal);
    link.attach({ input: fd, output: fd, name: "QEMU" });
    if (isInColo) link.enteredColo();
    stopPolling = pollMigration(context);
    await reactor.run(() => false, signal);
    throw new StateError("the protection ended by itself");
  } finally {
    isOver = true;
    cancelTimer?.();
    unfollow();
    stopPolling();
    stopWatching?.();
    link.detach();
    if (fd >= 0) libc().close(fd);
  }
}

/**
 * Ends a session whose guest has suspended itself, before QEMU gets leave to stop its VM: after a
 * checkpoint QEMU 10.0 and 11.1 abort, and 7.2 wakes the guest without the guest's knowledge. A
 * checkpoint that is under way is not committed: no guest can go on from a state in the middle of
 * suspending.
 */
export function leaveAsleep({ link, reactor }: Pick<ProtectContext, "link" | "reactor">): void {
  link.primary.dialogue.hold();
  link.detach();
  reactor.fail(new GuestSleeps());
}

/** Sets QEMU up for COLO without a description; the former settings are noted first. */
async function prepareQemu(
  { qmp, support, interval, folder }: ProtectContext,
): Promise<void> {
  saveSettings(folder, support);
  await leaveDescriptionOut(qmp, support);
  const set = (returnPath: boolean) =>
    qmp.runAll(enableColo(support, { checkpointDelayMs: interval.ms, returnPath }));
  try {
    await set(false);
  } catch (error) {
    // From 11 on QEMU needs a return path for COLO, and says so; before 11 there must be none.
    const wantsIt = error instanceof QemuError && wantsReturnPath(error);
    if (!wantsIt || !support.returnPath) throw error;
    await set(true);
  }
}

async function leaveDescriptionOut(qmp: QmpClient, support: MigrationSupport): Promise<void> {
  let refusal = "it does not have the property suppress-vmdesc";
  if (support.suppressVmdesc === true) return;
  if (support.suppressVmdesc === false) {
    try {
      await qmp.run(setSuppressVmdesc(true));
      return;
    } catch (error) {
      if (!(error instanceof QemuError)) throw error;
      refusal = error.message;
    }
  }
  log.warn(
    "QEMU goes on describing its state ({refusal}): QEMU 11.1 keeps 50 to 100 KB of memory for " +
      "every checkpoint because of that",
    { refusal },
  );
}

/**
 * Warns of a guest whose clock is stopped by checkpoints. If whole periods of the clock fit into
 * the interval, the interval is rounded to them: then the clock ticks on, except for the
 * checkpoints that output asks for.
 */
async function mindGuestTimer(context: ProtectContext, isOver: () => boolean): Promise<void> {
  const { qmp, link, interval, settings, trigger } = context;
  const { pause, dialogue, firstPass } = link.primary;
  const { warning, pit, periodMs } = await readGuestTimer(qmp, firstPass.fieldsOf("i8254"));
  if (warning === undefined || isOver()) return;
  log.warn("{warning}", { warning });
  if (pit !== "periodic" || periodMs === undefined) return;
  // Twice the pause: some time before and after the measured pause is not in it.
  const ticking = tickingIntervalMs(periodMs, settings.syncIntervalMs, 2 * pause.summary().p99);
  if (ticking === undefined || ticking === interval.ms) return;
  log.info("checkpoints every {ms} ms instead of {wanted}, so that it keeps its ticks", {
    ms: ticking,
    wanted: settings.syncIntervalMs,
  });
  interval.ms = ticking;
  // A request during a checkpoint is lost, and setting the interval is such a request.
  while (dialogue.inCheckpoint) await delay(1);
  if (!isOver()) trigger.request();
}

/**
 * Asks for the checkpoints that QEMU's timer misses: the timer uses the host's clock, and when that
 * is set back, it makes no checkpoints for as long.
 */
function watchInterval({ reactor, interval, trigger, link }: ProtectContext): () => void {
  const limitMs = 2 * interval.ms + INTERVAL_SLACK_MS;
  return reactor.every(limitMs / 2, () => {
    if (link.primary.dialogue.inCheckpoint) return;
    if (performance.now() - trigger.begunAt > limitMs) trigger.request();
  });
}

/** Polls for a migration that fails without its channel showing that, or that reaches COLO. */
function pollMigration({ reactor, qmp, link }: ProtectContext): () => void {
  let asking = false;
  let over = false;
  const cancel = reactor.every(POLL_MS, () => {
    if (asking) return;
    asking = true;
    failIfFailed(qmp).then((phase) => {
      // A proxy between QEMU and kemari may have lost the event.
      if (phase === "colo" && !over) link.enteredColo();
    }).catch((error) => {
      // The last answer may only show that this process has just closed the channel.
      if (!over) reactor.fail(error);
    }).finally(() => asking = false);
  });
  return () => {
    over = true;
    cancel();
  };
}
