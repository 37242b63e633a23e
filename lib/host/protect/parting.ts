/** Ends a session of `kemari protect`: because of the secondary, of QEMU, or of an interruption. */
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

/** How long an interrupted `protect` waits for QEMU; then the guardian waits on. */
const FAREWELL_MS = 3000;

/** Why a session has ended, and what has become of the VM, if the VM has ended it. */
interface WhyEnded {
  readonly end: PrimaryEnd;
  readonly vm?: VmFate;
}

/** @param error The error that has ended the session. */
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

/** The parts of a protection that its end needs. */
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
  /** Whether it was logged before that the VM is unprotected. */
  readonly isQuiet?: boolean;
  /**
   * Asks the secondary, over a new connection, whether it has taken over; if not, tells it that the
   * VM goes on here.
   */
  readonly ask: () => Promise<Answer>;
  /** Whether `protect` is interrupted: then QEMU does not get all the time that it may want. */
  readonly signal: AbortSignal;
}

/** How a session was ended. */
export interface Parted {
  /** What was known: the decision on the next try needs it. */
  readonly known: AtPrimaryEnd;
  /** What was decided for the VM. */
  readonly fate: Fate;
  /**
   * The final reason: by LEAVE, or by asking, this end may have learned that the VM is the
   * secondary's.
   */
  readonly error: unknown;
  /** What has become of the VM, if the VM has ended the session. */
  readonly vm?: VmFate;
  /** Whether the secondary has acknowledged what it was told. */
  readonly heard: boolean;
  /**
   * Whether QEMU was told, or need not be told any more. If not, that was logged; `later`: QEMU is
   * to be told when its VM has left its present state, see {@link letGo}.
   */
  readonly told: boolean | "later";
}

/**
 * Ends a session with the secondary, and releases the VM, whose migration has begun or is about to.
 *
 * @param error The error that has ended the session.
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
  // Before anything else: the following may let the VM run.
  const before = {
    vm: vm?.kind,
    isPaused: link?.primary.dialogue.isVmPaused === true,
    wasStopped: parting.watch.standsStill !== undefined,
    isHeldByUs: parting.still.isHeld,
  };
  const known = { end, onSecondaryLoss, stoodStill, isInterrupted: signal.aborted };
  const answer = await sayFarewell(known, fateInWords(vm), link, parting);
  const fate = afterFarewell(known, answer);
  // The secondary waits for the end of the connection before its VM runs: the VM here stops first.
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
 * Tells the secondary what {@link farewell} decides, and asks it if {@link mustAsk} decides so. The
 * VM's output is held meanwhile.
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
    // To a connected secondary, the end of the connection without that is a loss.
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
 * Tells QEMU that the VM is unprotected. The taps go on meanwhile: QEMU may wait for its disk
 * before it answers.
 *
 * @returns Whether QEMU was told; `later` if it was not, since the end of COLO would harm the VM in
 *   its present state.
 */
export async function letGo(
  action: OnSecondaryLoss,
  { qmp, reactor, folder, still, isQuiet = false, signal }: Parting,
): Promise<boolean | "later"> {
  let told: boolean | "later" | undefined;
  const task = (async () => {
    // A VM that is being stopped must have stopped before it can be released.
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
      // Also if QEMU refuses to let the VM run, or to stop it.
      await restoreSaved(qmp, folder);
    }
    return true;
  } catch (error) {
    // A QEMU that is gone need not be told, and its end is what protect is about to report.
    if (error instanceof TransportError && !qmp.isOpen) return true;
    log.error("QEMU was not told that it is unprotected: {reason}", {
      reason: (error as Error).message,
    });
    // If QEMU refuses this process, it refuses the guardian too.
    return !(error instanceof TransportError);
  }
}
