/**
 * What `kemari send` does when its session has ended otherwise than by a handover: what the
 * secondary is told, {@link sentFarewell}, and, after the secondary's answer or the lack of it,
 * what QEMU is told and what becomes of the taps: {@link afterSentFarewell}.
 *
 * **Why no case makes two VMs run.** `send` starts nothing, and tells QEMU to let its VM run only
 * if the VM may stand still in COLO because of a secondary that has said neither that it has taken
 * over nor that it has given this primary up. If the secondary says either, also as a reply to the
 * farewell, that comes first: then QEMU stops its VM. If the secondary has taken over, the
 * connection is kept until QEMU has stopped, since the secondary waits for the connection's end.
 * Whether the secondary may take over after a loss is the subject of its fencing.
 *
 * **Why a VM's output may leave again.** A secondary that has given this primary up may run the VM,
 * or may not: an operator has to look, as with `protect` (`primary_end.ts`). An operator who then
 * lets the VM run here has decided that it goes on here, unprotected. If the secondary has taken
 * over, no output leaves here any more.
 *
 * **Why a handover in doubt starts nothing.** From HANDOVER to its ACK, only the secondary knows at
 * which end the VM is. QEMU has ended its migration by then, and its VM stands still; it is told to
 * stop all the same. All held output has left, so nothing need be held back: an operator who lets
 * the VM run has looked at the secondary.
 *
 * **Why nobody's pause is overruled.** The end of COLO lets a VM run, also a VM that an operator,
 * or QEMU, has stopped. Then QEMU is told to stop it.
 */
import type { Answer } from "./primary_end.ts";
import type { VmFate } from "./vm_fate.ts";

/** What is known at the end. */
export interface AtSentEnd {
  /** Whether there was a session at all. */
  readonly isLinked: boolean;
  /**
   * How the secondary has ended the session: it has taken over, or it has given this primary up. In
   * both cases it may run the VM by now, and is not asked. See `primary_end.ts`.
   */
  readonly said?: "taken-over" | "given-up";
  /** Whether a HANDOVER was sent and not answered: this end cannot know which host runs the VM. */
  readonly isInDoubt: boolean;
  /** What has become of the VM, if QEMU has ended the session and its monitor can be asked. */
  readonly vm?: VmFate["kind"];
  /** Whether QEMU's bytes are at fault. */
  readonly isStreamFault: boolean;
  /** Whether QEMU has ever asked for a checkpoint. */
  readonly wasInColo: boolean;
  /** Whether QEMU may be in COLO, judged by the messages to it. */
  readonly mayBeColo: boolean;
  /** Whether QEMU has a monitor that kemari may use. */
  readonly hasMonitor: boolean;
  /** Whether the VM stands still for another reason than a checkpoint. */
  readonly isPaused: boolean;
  readonly isInterrupted: boolean;
}

/** Which LEAVE the secondary is sent. */
type SentFarewell = "goes-on" | "vm-ended" | "nothing";

/**
 * Fates of a VM that is here, in a QEMU that has ended the session itself and does not wait for
 * kemari.
 */
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
  // QEMU's migration fails when this process is gone, and its VM goes on: the secondary must not
  // take over.
  if (isStreamFault && !wasInColo) return "goes-on";
  // An operator who interrupts this process wants the VM to go on here, and it can, when QEMU is
  // told.
  return isInterrupted && isToBeTold(known) ? "goes-on" : "nothing";
}

/** What follows. */
export interface SentEnd {
  /** Whether this is an orderly end, which both sides know. */
  readonly isGood: boolean;
  readonly qemu: "continue" | "stop" | "nothing";
  /** Whether the connection is kept until QEMU was told, since the secondary waits for its end. */
  readonly keepsConnection: boolean;
  /**
   * What the taps do with held output, and with further output. `hold-until-resumed`: the VM was
   * stopped, and somebody may let it run again.
   */
  readonly taps: "pass" | "hold" | "hold-until-resumed";
  /**
   * Whether to restore the settings of a QEMU that has ended its migration itself. If QEMU is told
   * to stop its VM, that restores them too.
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
 * Whether QEMU may wait in COLO for a message. If COLO was cancelled during a checkpoint, the VM
 * stands still, too; a VM that an operator has stopped is then left alone, since QEMU 7.2 stops
 * each VM before it ends COLO.
 */
function isToBeTold({ isLinked, vm, mayBeColo, hasMonitor, isPaused }: AtSentEnd): boolean {
  // A stranded QEMU cannot go on, whatever it is told: see `VmFate`.
  const mayStandStill = vm === "cancelled" && !isPaused;
  const needsNothing = HERE.has(vm) && !mayStandStill || vm === "stranded";
  return isLinked && hasMonitor && mayBeColo && !needsNothing;
}
