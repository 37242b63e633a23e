/** What `kemari protect` makes of an end: of the secondary's, of QEMU's, and of its own. */
import { getLogger } from "@logtape/logtape";
import {
  afterFarewell,
  type Answer,
  type AtPrimaryEnd,
  farewell,
  type Fate,
  mustAsk,
  type PrimaryEnd,
} from "../../decisions/primary_end.ts";
import { judgePrimaryEnd, judgePrimaryEndByFate } from "../../decisions/primary_session_end.ts";
import { judgeFate, type VmFate } from "../../decisions/vm_fate.ts";
import { decideRelease } from "../../decisions/decide_release.ts";
import { TransportError, WireError } from "../../errors.ts";
import type { Guardian } from "./guardian.ts";
import type { QmpClient } from "../vm/qmp_client.ts";
import { besides } from "../system/failure_beside.ts";
import type { Reactor } from "../system/reactor.ts";
import { type OnSecondaryLoss, releaseVm, staysInColo } from "../vm/release_vm.ts";
import { restoreSaved } from "../vm/saved_settings.ts";
import { givenUp, hasGivenUsUp } from "../link/lost_secondary.ts";
import type { SenderLink } from "../link/sender_link.ts";
import type { StillVm } from "../vm/still_vm.ts";
import type { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";
import { fateInWords } from "../vm/vm_end_words.ts";
import { GuestSleeps, VmEnded, type VmWatch } from "../vm/vm_watch.ts";

const log = getLogger(["kemari", "protect"]);

/** How long an interruption waits for QEMU, which is less than its process has; the guardian waits on. */
const FAREWELL_MS = 3000;

/** What kind of end a session has had, and what has become of the VM, where that has a part in it. */
interface WhyEnded {
  readonly end: PrimaryEnd;
  readonly vm?: VmFate;
}

/** @param error What has ended it. */
export async function endOf(
  error: unknown,
  { watch, reactor, signal }: Parting,
): Promise<WhyEnded> {
  const end = judgePrimaryEnd({
    fault: error instanceof WireError ? error.fault : undefined,
    lost: error instanceof TransportError ? error.party : undefined,
    said: error instanceof VmEnded
      ? "vm-ended"
      : error instanceof GuestSleeps
      ? "guest-sleeps"
      : undefined,
    wasShutDown: watch.shutdown !== undefined,
    isInterrupted: signal.aborted,
  });
  if (end === "look-at-vm") {
    const vm = judgeFate(await watch.evidence(reactor));
    return { end: judgePrimaryEndByFate(vm, signal.aborted), vm };
  }
  return error instanceof VmEnded ? { end, vm: { kind: "ended", reason: error.reason } } : { end };
}

/** Who has a part in a protection's end. */
export interface Parting {
  readonly qmp: QmpClient;
  readonly reactor: Reactor;
  /** The protection's temporary folder, with a note of QEMU's settings as they were. */
  readonly folder: string;
  readonly watch: VmWatch;
  readonly still: StillVm;
  readonly taps: Pick<PrimaryTapDevices, "passThrough">;
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
  /** What was known: the next try is decided by it, and by the next. */
  readonly known: AtPrimaryEnd;
  /** What was decided of the VM. */
  readonly fate: Fate;
  /** What has ended it in the end: who leaves, or asks, may hear that the VM is the secondary's. */
  readonly error: unknown;
  /** What has become of the VM, where that has ended the session. */
  readonly vm?: VmFate;
  /** Whether the secondary has acknowledged what it was told. */
  readonly heard: boolean;
  /**
   * Whether QEMU was told, or has nothing to be told any more. If not, that was said loudly; `later`: it
   * is to be told when its VM has left the state that it is in, see {@link letGo}.
   */
  readonly told: boolean | "later";
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
  const stoodStill = link?.stoodStill === true;
  const { onSecondaryLoss, signal } = parting;
  const { end, vm } = await endOf(error, parting);
  // Before anything is told: what follows may let the VM run.
  const before = {
    vm: vm?.kind,
    isPaused: link?.primary.dialogue.isVmPaused === true,
    wasStopped: parting.watch.standsStill !== undefined,
    isHeldByUs: parting.still.isHeld,
  };
  const known = { end, onSecondaryLoss, stoodStill, isInterrupted: signal.aborted };
  const answer = await sayFarewell(known, fateInWords(vm), link, parting);
  const fate = afterFarewell(known, answer);
  // The secondary waits for the connection's end before its VM runs: ours stops first.
  if (fate === "is-theirs") link?.quiesce();
  else link?.close();
  if (fate === "goes-on" || fate === "has-ended") parting.taps.passThrough();
  let told: boolean | "later" = true;
  const release = decideRelease({ ...before, fate, hasBegun: parting.still.hasBegun });
  if (release === "settings-only") {
    await restoreSaved(parting.qmp, parting.folder).catch(() => {});
  } else if (release !== "nothing") {
    parting.guardian.decide(release);
    told = await letGo(release, parting);
  }
  link?.close();
  const isTheirs = fate === "is-theirs" && end !== "taken-over";
  const isGivenUp = answer === "given-up" && vm?.kind !== "ended";
  return {
    known: { ...known, end: isTheirs ? "taken-over" : end, isInterrupted: signal.aborted },
    fate,
    error: isTheirs ? takenOver(error) : isGivenUp ? givenUp(error) : error,
    vm: isTheirs || isGivenUp ? undefined : vm,
    heard: answer === "heard",
    told,
  };
}

function takenOver(cause: unknown): WireError {
  return new WireError("transaction", 0, "taken-over", "the VM is the secondary's by now", {
    hint: "the VM must not run here any more: end this QEMU",
    cause,
  });
}

/**
 * Tells the secondary what {@link farewell} says, and asks it where {@link mustAsk} says so. What the VM
 * says meanwhile is held.
 */
async function sayFarewell(
  known: AtPrimaryEnd,
  words: string,
  link: SenderLink | undefined,
  { ask }: Parting,
): Promise<Answer> {
  const tells = farewell(known);
  let answer: Answer = known.end === "silence" ? "given-up" : "unheard";
  try {
    // The connection's end without that is a loss to a secondary that is there.
    if (tells !== "nothing" && answer === "unheard" && await link?.leave(tells, words)) {
      return "heard";
    }
  } catch (error) {
    if (!hasGivenUsUp(error)) return "taken-over";
    answer = "given-up";
  }
  if (!mustAsk(known, answer)) return answer;
  link?.close();
  const asked = await ask().catch((): Answer => "taken-over");
  return asked === "unheard" ? answer : asked;
}

/**
 * Tells QEMU that it is alone. The taps go on meanwhile: it may wait for its disk before it answers.
 *
 * @returns Whether it was; `later` where COLO's end would harm its VM as it is, and nothing was said.
 */
export async function letGo(
  action: OnSecondaryLoss,
  { qmp, reactor, folder, still, isQuiet = false, signal }: Parting,
): Promise<boolean | "later"> {
  let told: boolean | "later" | undefined;
  const task = (async () => {
    // A VM that is being stopped must be, before it can be let go.
    await still.giveUp();
    const state = await staysInColo(qmp).catch(() => undefined);
    if (state !== undefined) {
      log.info("the VM is {state}: QEMU is told that it is unprotected when that is over", {
        state,
      });
      told = "later";
    } else told = await tellQemu(qmp, action, folder, still, isQuiet);
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
    await reactor.runOn(() => told !== undefined, besides("QEMU is told that it is unprotected"));
  } finally {
    signal.removeEventListener("abort", hurry);
    cancel();
    done();
  }
  if (!told) log.error("QEMU does not answer; kemari's guardian waits to tell it");
  return told!;
}

async function tellQemu(
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
