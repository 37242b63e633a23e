/** What `kemari protect` makes of an end: of the secondary's, of QEMU's, and of its own. */
import { getLogger } from "@logtape/logtape";
import { judgeFate, reactTo, type VmFate } from "../decisions/vm_fate.ts";
import { KemariError, QemuError, TransportError, WireError } from "../errors.ts";
import type { Guardian } from "./guardian.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { Reactor } from "./reactor.ts";
import { isTakenOver, type OnSecondaryLoss, releaseVm, staysInColo } from "./release_vm.ts";
import { restoreSaved } from "./saved_settings.ts";
import type { SenderLink } from "./sender_link.ts";
import type { StillVm } from "./still_vm.ts";
import type { TapSet } from "./tap_set.ts";
import { GuestSleeps, VmEnded, type VmWatch } from "./vm_watch.ts";

const log = getLogger(["kemari", "protect"]);

/** How long an interruption waits for QEMU, which is less than its process has; the guardian waits on. */
const FAREWELL_MS = 3000;

/** For what has to be done after an interruption too. */
const uninterrupted = new AbortController().signal;

/** Whether another secondary, or the same one come back, would mend it. */
export function isSecondaryLoss(error: unknown): boolean {
  if (error instanceof TransportError) return error.party === "peer";
  return error instanceof WireError && (error.fault === "busy" || error.fault === "storage");
}

/**
 * What has become of the VM, where that has ended a session, or will: QEMU's stream or monitor has
 * ended, or it has said of its VM that it sleeps or was shut down.
 *
 * @returns `undefined` where the VM has no part in it.
 */
export async function fateBehind(
  error: unknown,
  watch: VmWatch,
  reactor: Reactor,
): Promise<VmFate | undefined> {
  const isItsEnd = error instanceof TransportError && error.party === "qemu";
  const hasSaid = error instanceof VmEnded || error instanceof GuestSleeps;
  if (!isItsEnd && !hasSaid && watch.shutdown === undefined && !watch.isAsleep) return undefined;
  return judgeFate(await watch.evidence(reactor));
}

/** A fate in words, for the secondary and its operator; the reason of a LEAVE. */
export function fateInWords(fate: VmFate | undefined): string {
  switch (fate?.kind) {
    case "ended":
      return fate.reason;
    case "asleep":
      return "the guest sleeps, suspended to RAM";
    case "cancelled":
      return `QEMU's migration was ended by ${fate.how}`;
    case "failed":
      return "QEMU's migration failed";
    case "alive":
      return "QEMU's migration was cut";
    default:
      return "";
  }
}

/**
 * What a protection ends with that the VM has ended.
 *
 * @param error What was seen of it.
 * @param heard Whether the secondary has acknowledged what it was told; undefined if there was none.
 */
export function endedBy(
  fate: VmFate,
  error: unknown,
  heard: boolean | undefined,
  peer: string,
): unknown {
  const what = fateInWords(fate);
  switch (fate.kind) {
    case "ended":
      if (heard === true) {
        log.info("the secondary knows that the VM was shut down, and starts nothing");
      }
      if (heard !== false) return new VmEnded(what);
      return new TransportError(
        peer,
        "read",
        `the VM was shut down (${what}), and the secondary has not acknowledged it: it may take over`,
        {
          party: "peer",
          hint:
            "nothing of what the guest said since its last transaction has got out; see kemari " +
            "status at the secondary before you start the VM anywhere",
        },
      );
    case "stranded":
      return new QemuError("x-colo", "GenericError", STRANDED, {
        hint:
          "end this QEMU (quit); the secondary has the VM as it was a moment before. Turn S3 off to " +
          "keep it from happening again: see kemari doctor",
      });
    case "dead":
      return error;
    default:
      if (error instanceof KemariError && !(error instanceof TransportError)) return error;
      return new QemuError("migrate", "GenericError", what, {
        cause: error,
        hint: heard
          ? "the VM is here, unprotected, and the secondary knows; kemari protect begins again"
          : "the VM is here: do not activate it at the secondary as well",
      });
  }
}

const STRANDED =
  "the guest has suspended itself in the very moment of a checkpoint, and QEMU cannot " +
  "take its VM out of it again";

/** Who has a part in a protection's end. */
export interface Parting {
  readonly qmp: QmpClient;
  readonly reactor: Reactor;
  /** The protection's temporary folder, with a note of QEMU's settings as they were. */
  readonly folder: string;
  readonly watch: Pick<VmWatch, "standsStill">;
  readonly still: StillVm;
  readonly taps: Pick<TapSet, "passThrough">;
  readonly guardian: Pick<Guardian, "decide">;
  readonly onSecondaryLoss: OnSecondaryLoss;
  /** Whether we are interrupted: then QEMU does not have all the time that it may want. */
  readonly signal: AbortSignal;
}

/** How things stand behind a session. */
export interface Parted {
  /**
   * Whether QEMU knows that it is alone, or has nothing to be told any more. If not, that was said
   * loudly; `later`: it is to be told when its VM has left the state that it is in, see {@link letGo}.
   */
  readonly told: boolean | "later";
  /** Whether the secondary has answered that it was left. */
  readonly heard: boolean;
}

/**
 * Ends one session with the secondary, and lets go of the VM, whose migration has begun or is about
 * to.
 *
 * @param error What has ended it.
 * @param fate What has become of the VM, where that is why.
 * @param link The session, if there is one.
 */
export async function partFromSecondary(
  error: unknown,
  fate: VmFate | undefined,
  link: SenderLink | undefined,
  parting: Parting,
): Promise<Parted> {
  // COLO's end lets a VM run that somebody else had paused. Where COLO was over before us, QEMU has
  // done so by itself, and has stopped it for that first.
  const isStopped = link?.primary.dialogue.isVmPaused === true && fate?.kind !== "cancelled" ||
    parting.watch.standsStill !== undefined;
  const wasPaused = isStopped && !parting.still.isHeld;
  const { stand, heard } = await sayFarewell(error, fate, link, parting);
  // The secondary waits for the connection's end before its VM runs: ours stops first.
  if (stand === "taken-over") link?.quiesce();
  else link?.close();
  if (stand === "goes-on" || stand === "ended") parting.taps.passThrough();
  let told: boolean | "later" = true;
  // One whose secondary never said who it is has not been told of any protection; a VM that is lost to
  // QEMU itself is not to be touched.
  if ((link?.ready || stand === "taken-over") && fate?.kind !== "stranded") {
    const action = stand === "goes-on" && !wasPaused ? "continue" : "stop";
    parting.guardian.decide(action);
    told = await letGo(action, parting);
  }
  link?.close();
  return { told, heard };
}

/** What becomes of the VM here, and whether the secondary has heard of it. */
interface Farewell {
  readonly stand: "taken-over" | "goes-on" | "stops" | "ended";
  readonly heard: boolean;
}

/**
 * Tells the secondary that the VM goes on here, or was shut down, only where that is true: where it
 * stops, the secondary must take over. Who interrupts us, or ends QEMU's migration, wants neither, but
 * the secondary must have heard it.
 */
async function sayFarewell(
  error: unknown,
  fate: VmFate | undefined,
  link: SenderLink | undefined,
  { onSecondaryLoss, signal }: Parting,
): Promise<Farewell> {
  if (isTakenOver(error)) return { stand: "taken-over", heard: true };
  const tell = fate === undefined ? "goes-on" : reactTo(fate).tell;
  const mayGoOn = onSecondaryLoss === "continue";
  const isNoLoss = signal.aborted || fate !== undefined;
  if (tell === "nothing" || !mayGoOn && !isNoLoss) return { stand: "stops", heard: false };
  try {
    const heard = await link?.leave(tell, fateInWords(fate)) === true;
    if (tell === "vm-ended") return { stand: heard ? "ended" : "stops", heard };
    return { stand: mayGoOn || heard ? "goes-on" : "stops", heard };
  } catch {
    return { stand: "taken-over", heard: true };
  }
}

/**
 * Tells QEMU that it is alone. The taps go on meanwhile: it may wait for its disk before it answers.
 *
 * @returns Whether it was; `later` where COLO's end would harm its VM as it is, and nothing was said.
 */
export async function letGo(
  action: OnSecondaryLoss,
  { qmp, reactor, folder, still, signal }: Parting,
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
    } else told = await release(qmp, action, folder, still);
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
): Promise<boolean> {
  try {
    try {
      const state = await releaseVm(qmp, action, still.isHeld);
      log.info("the VM is {state}, unprotected", { state });
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
