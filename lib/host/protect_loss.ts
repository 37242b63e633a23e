/** What `kemari protect` makes of an end: of the secondary's, of QEMU's, and of its own. */
import { getLogger } from "@logtape/logtape";
import {
  afterFarewell,
  type Answer,
  type AtPrimaryEnd,
  type Farewell,
  farewell,
  type PrimaryEnd,
} from "../decisions/primary_end.ts";
import { TransportError, WireError } from "../errors.ts";
import { queryStatus } from "../qmp/migration.ts";
import type { Guardian } from "./guardian.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { Reactor } from "./reactor.ts";
import { type OnSecondaryLoss, releaseVm } from "./release_vm.ts";
import { restoreSaved } from "./saved_settings.ts";
import type { SenderLink } from "./sender_link.ts";
import type { StillVm } from "./still_vm.ts";
import type { TapSet } from "./tap_set.ts";

const log = getLogger(["kemari", "protect"]);

/** How long an interruption waits for QEMU, which is less than its process has; the guardian waits on. */
const FAREWELL_MS = 3000;

/** For what has to be done after an interruption too. */
const uninterrupted = new AbortController().signal;

/** How long a QEMU whose stream has ended has to show that it lives. */
const ALIVE_MS = 1000;

/** Whether the VM has died, rather than whoever protects it, or the stream between them. */
async function isQemuLost(
  error: unknown,
  qmp: QmpClient,
  reactor: Reactor,
): Promise<boolean> {
  const isItsEnd = error instanceof TransportError && error.party === "qemu";
  if (!isItsEnd || !qmp.isOpen) return isItsEnd;
  try {
    await reactor.during(qmp.run(queryStatus(), { timeoutMs: ALIVE_MS }), uninterrupted);
    return false;
  } catch {
    return true;
  }
}

/**
 * What kind of end a session has had.
 *
 * @param error What has ended it.
 */
async function endOf(error: unknown, { qmp, reactor, signal }: Parting): Promise<PrimaryEnd> {
  if (error instanceof WireError) {
    if (error.fault === "taken-over" || error.fault === "silence") return error.fault;
    if (error.fault === "busy" || error.fault === "storage") return error.fault;
    if (error.fault === "activating") return "busy";
  }
  if (error instanceof TransportError && error.party === "peer") return "secondary-lost";
  if (await isQemuLost(error, qmp, reactor)) return "vm-died";
  return signal.aborted ? "interrupted" : "fault";
}

/** Who has a part in a protection's end. */
export interface Parting {
  readonly qmp: QmpClient;
  readonly reactor: Reactor;
  /** The protection's temporary folder, with a note of QEMU's settings as they were. */
  readonly folder: string;
  readonly still: StillVm;
  readonly taps: Pick<TapSet, "passThrough">;
  readonly guardian: Pick<Guardian, "decide">;
  readonly onSecondaryLoss: OnSecondaryLoss;
  /** Whether that the VM is unprotected has been said before, and is no news. */
  readonly isQuiet?: boolean;
  /** Asks the secondary, over a new connection, whether it has taken over; and says that we go on. */
  readonly ask: () => Promise<Answer>;
  /** Whether we are interrupted: then QEMU does not have all the time that it may want. */
  readonly signal: AbortSignal;
}

/** How a session was ended. */
export interface Parted {
  /** What was known: the next try is decided by it. */
  readonly known: AtPrimaryEnd;
  /** What has ended it in the end: who leaves, or asks, may hear that the VM is the secondary's. */
  readonly error: unknown;
  /** Whether QEMU was told, or has nothing to be told any more; if not, that was said loudly. */
  readonly told: boolean;
}

/**
 * Ends one session with the secondary, and lets go of the VM, whose migration has begun or is about
 * to.
 *
 * @param error What has ended it.
 * @param link The session, if there is one.
 */
export async function partFromSecondary(
  error: unknown,
  link: SenderLink | undefined,
  parting: Parting,
): Promise<Parted> {
  // COLO's end lets a VM run that somebody else had paused.
  const wasPaused = link?.primary.dialogue.isVmPaused === true && !parting.still.isHeld;
  const stoodStill = link?.stoodStill === true;
  const { onSecondaryLoss, signal } = parting;
  const end = await endOf(error, parting);
  const known = { end, onSecondaryLoss, stoodStill, isInterrupted: signal.aborted };
  const fate = afterFarewell(known, await sayFarewell(farewell(known), link, parting));
  // The secondary waits for the connection's end before its VM runs: ours stops first.
  if (fate === "is-theirs") link?.quiesce();
  else link?.close();
  if (fate === "goes-on" || fate === "has-ended") parting.taps.passThrough();
  let told = true;
  // One whose secondary never said who it is has not been told of any protection.
  if (link?.ready || fate === "is-theirs") {
    const action = fate === "goes-on" && !wasPaused ? "continue" : "stop";
    parting.guardian.decide(action);
    told = await letGo(action, parting);
  }
  link?.close();
  const isTheirs = fate === "is-theirs" && end !== "taken-over";
  return {
    known: { ...known, end: isTheirs ? "taken-over" : end, isInterrupted: signal.aborted },
    error: isTheirs ? takenOver(error) : error,
    told,
  };
}

function takenOver(cause: unknown): WireError {
  return new WireError("transaction", 0, "taken-over", "the VM is the secondary's by now", {
    hint: "the VM must not run here any more: end this QEMU",
    cause,
  });
}

/** Carries out what {@link farewell} says. What the VM says meanwhile is held. */
async function sayFarewell(
  { asks, tells }: Farewell,
  link: SenderLink | undefined,
  { ask }: Parting,
): Promise<Answer> {
  try {
    if (asks) {
      link?.close();
      return await ask();
    }
    if (tells === "nothing") return "unheard";
    return await link?.leave(tells) ? "heard" : "unheard";
  } catch {
    return "taken-over";
  }
}

/** Tells QEMU that it is alone. The taps go on meanwhile: it may wait for its disk before it answers. */
async function letGo(
  action: OnSecondaryLoss,
  { qmp, reactor, folder, still, isQuiet = false, signal }: Parting,
): Promise<boolean> {
  let told: boolean | undefined;
  const task = (async () => {
    // A VM that is being stopped must be, before it can be let go.
    await still.giveUp();
    told = await release(qmp, action, folder, still, isQuiet);
  })();
  let cancel = () => {};
  const hurry = () => {
    cancel = reactor.after(FAREWELL_MS, () => told ??= false);
    reactor.wake();
  };
  if (signal.aborted) hurry();
  else signal.addEventListener("abort", hurry);
  const done = reactor.awaitRuntime();
  task.finally(() => reactor.wake()).catch(() => {});
  try {
    await reactor.run(() => told !== undefined, uninterrupted);
  } finally {
    signal.removeEventListener("abort", hurry);
    cancel();
    done();
  }
  if (!told) log.error("QEMU does not answer; kemari's guardian waits to tell it");
  return told!;
}

async function release(
  qmp: QmpClient,
  action: OnSecondaryLoss,
  folder: string,
  still: StillVm,
  isQuiet: boolean,
): Promise<boolean> {
  try {
    try {
      const state = await releaseVm(qmp, action, still.isHeld);
      log[isQuiet ? "debug" : "info"]("the VM is {state}, unprotected", { state });
    } finally {
      // Also where QEMU refuses to let the VM run, or to stop it.
      await restoreSaved(qmp, folder);
    }
    return true;
  } catch (error) {
    // A QEMU that is gone need not be told, and its end is what protect is about to report.
    if (error instanceof TransportError && !qmp.isOpen) return true;
    log.error("QEMU was not told that it is unprotected: {reason}", {
      reason: (error as Error).message,
    });
    // One that refuses it refuses the guardian too.
    return !(error instanceof TransportError);
  }
}
