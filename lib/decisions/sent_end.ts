/**
 * What `kemari send` does when its session has ended otherwise than by a handover: what the secondary is
 * told, {@link sentFarewell}, and, once that has answered or not, what QEMU is told and what becomes of
 * the taps: {@link afterSentFarewell}.
 *
 * **Why no case makes two VMs run.** `send` starts nothing, and QEMU is told to let its VM run only where
 * it may stand still in COLO for a secondary that has neither said that the VM is its own nor that it has
 * given us up. The secondary's word for that comes before everything, also where it crosses our farewell:
 * then QEMU stops its VM. Of a VM that is the secondary's, the connection is kept until QEMU has, since the
 * secondary waits for the connection's end. Whether the secondary may take over behind a loss is what its
 * fencing is for.
 *
 * **Why a VM may have its output again.** A secondary that has given us up may run the VM, or may not:
 * somebody has to look, as with `protect` (`primary_end.ts`). Whoever then lets the VM run here has decided
 * that it goes on here, unprotected. A VM that is the secondary's gets nothing out here any more.
 *
 * **Why a handover in doubt starts nothing.** From HANDOVER to its ACK the VM is the secondary's or ours,
 * and only the secondary knows. QEMU has ended its migration by then, and its VM stands still; it is told to
 * stop all the same. All that was held is out, so nothing need be kept back: whoever lets the VM run has
 * looked at the secondary.
 *
 * **Why nobody's pause is overruled.** COLO's end lets a VM run, also one that an operator, or QEMU, has
 * stopped. Such a VM is told to stop.
 */
import type { Answer } from "./primary_end.ts";
import type { VmFate } from "./vm_fate.ts";

/** What is known when it ends. */
export interface AtSentEnd {
  /** Whether there was a session at all. */
  readonly isLinked: boolean;
  /**
   * What the secondary has ended the session with: that the VM is its own, or that it has given us up. In
   * both cases it may run the VM by now, and is not asked. See `primary_end.ts`.
   */
  readonly said?: "taken-over" | "given-up";
  /** Whether a HANDOVER was sent and not answered: nobody here knows whose VM it is. */
  readonly isInDoubt: boolean;
  /** What has become of the VM, where QEMU has ended it and its monitor can be asked. */
  readonly vm?: VmFate["kind"];
  /** Whether QEMU's bytes are what is wrong. */
  readonly isStreamFault: boolean;
  /** Whether QEMU has ever asked for a checkpoint. */
  readonly wasInColo: boolean;
  /** Whether QEMU may be in COLO, by what it was told. */
  readonly mayBeColo: boolean;
  /** Whether QEMU has a monitor that we may speak to. */
  readonly hasMonitor: boolean;
  /** Whether the VM stands still, and not for a checkpoint. */
  readonly isPaused: boolean;
  readonly isInterrupted: boolean;
}

/** Which LEAVE the secondary is sent. */
type SentFarewell = "goes-on" | "vm-ended" | "nothing";

/** Fates of a VM that is here, in a QEMU that has ended the session itself: it waits for nobody. */
const HERE: ReadonlySet<VmFate["kind"] | undefined> = new Set<VmFate["kind"]>([
  "asleep",
  "cancelled",
  "failed",
  "alive",
]);

/** Decides what the secondary is told. */
export function sentFarewell(known: AtSentEnd): SentFarewell {
  const { isLinked, said, isInDoubt, vm, isStreamFault, wasInColo, isInterrupted } = known;
  if (!isLinked || said !== undefined || isInDoubt) return "nothing";
  if (vm === "ended") return "vm-ended";
  if (HERE.has(vm)) return "goes-on";
  // QEMU finds us gone, its migration fails, and its VM goes on: nobody is to take over.
  if (isStreamFault && !wasInColo) return "goes-on";
  // Whoever interrupts us means the VM to go on here, and it can, once QEMU is told.
  return isInterrupted && isToBeTold(known) ? "goes-on" : "nothing";
}

/** What follows. */
export interface SentEnd {
  /** Whether it is an orderly end, of which everybody knows. */
  readonly isGood: boolean;
  readonly qemu: "continue" | "stop" | "nothing";
  /** Whether the connection lasts until QEMU was told: the secondary waits for its end. */
  readonly keepsConnection: boolean;
  /**
   * What the taps do with what is held, and with what comes. `hold-until-resumed`: somebody may let the VM,
   * which was stopped, run again.
   */
  readonly taps: "pass" | "hold" | "hold-until-resumed";
  /**
   * Whether what we changed in a QEMU that has ended its migration itself is put back. A QEMU that is told
   * to stop its VM has it back with that.
   */
  readonly putsBack: boolean;
  /** Whether the taps are served on for a QEMU that uses them. */
  readonly servesOn: boolean;
}

/** Decides what follows. */
export function afterSentFarewell(known: AtSentEnd, answer: Answer): SentEnd {
  const { isLinked, vm, hasMonitor, isPaused, isInterrupted } = known;
  const isTheirs = known.said === "taken-over" || answer === "taken-over";
  const isGivenUp = !isTheirs && (known.said === "given-up" || answer === "given-up");
  const isInDoubt = !isTheirs && known.isInDoubt;
  const mayBeTheirs = isTheirs || isGivenUp;
  const stops = (mayBeTheirs || isInDoubt) && isLinked && hasMonitor;
  const isGood = vm === "ended" && answer === "heard";
  const ends = {
    isGood,
    taps: (isGivenUp || isInDoubt) && stops ? "hold-until-resumed" : mayBeTheirs ? "hold" : "pass",
    keepsConnection: isTheirs,
    putsBack: HERE.has(vm),
    servesOn: !isGood && !isInterrupted,
  } as const;
  if (stops) return { ...ends, qemu: "stop", putsBack: false };
  if (isGood || !isToBeTold(known)) return { ...ends, qemu: "nothing" };
  return { ...ends, qemu: isPaused ? "stop" : "continue" };
}

/**
 * Whether QEMU may wait in COLO for a word of ours. A COLO that was cancelled in the midst of a checkpoint
 * leaves its VM standing still, too; one that an operator has stopped is left alone then, since QEMU 7.2
 * stops each VM before it ends COLO.
 */
function isToBeTold({ isLinked, vm, mayBeColo, hasMonitor, isPaused }: AtSentEnd): boolean {
  // A QEMU that is stranded has no way out, whatever it is told: see `VmFate`.
  const mayStandStill = vm === "cancelled" && !isPaused;
  const needsNothing = HERE.has(vm) && !mayStandStill || vm === "stranded";
  return isLinked && hasMonitor && mayBeColo && !needsNothing;
}
