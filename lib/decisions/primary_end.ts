/**
 * What a primary does when a session with its secondary has ended: {@link farewell}, {@link
 * mustAsk}, and, after the secondary's answer or the lack of it, {@link afterFarewell}.
 *
 * **Why no case makes two VMs run.** The VM goes on here only if the secondary knows that (it
 * answered LEAVE), or if the operator has chosen that the VM goes on without a secondary
 * (`--on-secondary-loss continue`) and the secondary has not said that it may start the VM. Against
 * a secondary that starts it all the same there is fencing, which the secondary needs for
 * `--on-loss activate`. The secondary has two ways to say that it may start the VM. `taken-over`:
 * it has taken over, which nothing overrules. `silence`: it has heard nothing from this primary for
 * its grace time, has given it up, and does what its `--on-loss` says, which is not known here. So
 * the primary asks, before any output leaves; and if nobody answers, the VM stops, whatever the
 * operator has chosen for a loss: a `kemari recv … | qemu` ends when it has taken over, and its
 * listener with it, so a refused connection may mean that the secondary's VM runs. No other try
 * follows then (`nextTry`): an operator has to look whether the VM runs there.
 *
 * A primary that only knows that it stood still for about as long as the secondary's patience
 * (SIGSTOP, a frozen cgroup, a host that swaps) asks as well: it may have been taken for dead. If
 * nobody answers, `--on-secondary-loss` decides, as for any loss: the secondary has not said that
 * it gave the primary up, and a secondary that died while this host swapped is no reason to stop
 * the VM for good.
 *
 * **Why no healthy secondary is made to take over.** The end of a connection without LEAVE is a
 * loss to the secondary, to which `--on-loss activate` reacts at once: no other connection can come
 * before. So LEAVE is sent over the session first, however it has ended at this side, and the
 * connection is closed only after the answer: a secondary that was too slow, or not heard for a
 * while, may still be there, and mostly no secondary has noticed that its primary stood still. A
 * new connection is used if the session cannot serve any more: it gives no answer, or the secondary
 * has ended it by `silence`.
 *
 * **Why no acknowledged state is lost.** `stops` and `goes-on` keep QEMU; and while the secondary
 * is asked, the VM's output is still held, so that no client has seen anything that the secondary
 * lacks. Of a VM that has died, no more output leaves: the secondary must find a loss. If the VM
 * was shut down, its last output leaves when the secondary has acknowledged that it starts nothing:
 * this output fits this host's disks, which are the only ones that count from then on. A copy of a
 * disk at the secondary lacks what the guest wrote since its last transaction until the VM is
 * protected again.
 */

/** Why a session ended. */
export type PrimaryEnd =
  /** The operator ends protect. */
  | "interrupted"
  /** The connection failed, or the secondary was silent. */
  | "secondary-lost"
  /** The secondary is alive, and heard nothing from this primary for its grace time. */
  | "silence"
  /** The VM is the secondary's. */
  | "taken-over"
  /** The secondary has another sender, or activates. */
  | "busy"
  /** The replica's storage there cannot be written. */
  | "storage"
  /** QEMU died. */
  | "vm-died"
  /** The VM was shut down. */
  | "vm-ended"
  /**
   * The VM is here, and cannot be protected at the moment: it sleeps, or its migration was
   * cancelled.
   */
  | "vm-rests"
  /** A failure for which trying again does not help: a refusal, bytes at fault, a bug. */
  | "fault";

/** What a primary knows then. */
export interface AtPrimaryEnd {
  readonly end: PrimaryEnd;
  /** `--on-secondary-loss`. */
  readonly onSecondaryLoss: "continue" | "stop";
  /** Whether this primary may have been taken for dead: it stood still for about that long. */
  readonly stoodStill: boolean;
  /** Whether the operator has ended protect by now, however the session has ended. */
  readonly isInterrupted: boolean;
}

/**
 * What the secondary is told first, over the session unless that has ended by `silence`: which
 * LEAVE; or nothing, if it must find a loss, or need not be told.
 */
type Farewell = "goes-on" | "vm-ended" | "nothing";

/** Decides what the secondary is told. */
export function farewell({ end, onSecondaryLoss, isInterrupted }: AtPrimaryEnd): Farewell {
  switch (end) {
    case "taken-over":
    case "vm-died":
      return "nothing";
    case "vm-ended":
      return "vm-ended";
    case "vm-rests":
      return "goes-on";
    default:
      // A VM that is to stop here needs no LEAVE: the secondary may run it.
      return onSecondaryLoss === "stop" && !isInterrupted ? "nothing" : "goes-on";
  }
}

/** What the secondary answered. */
export type Answer =
  /** It has confirmed. */
  | "heard"
  /** It did not answer, or could not be reached. */
  | "unheard"
  /**
   * It has given this primary up after a silence, and may be about to take over, or have done so.
   */
  | "given-up"
  /** It has taken over. */
  | "taken-over";

/**
 * Decides whether to ask the secondary, over a new connection, if it has taken over, and tell it
 * that the VM goes on here; all output is held until it answers.
 *
 * @param answer The answer over the session; `given-up` if the secondary has ended the session with
 *   that.
 */
export function mustAsk(known: AtPrimaryEnd, answer: Answer): boolean {
  if (farewell(known) !== "goes-on") return false;
  if (answer === "given-up") return true;
  // It was alive to refuse, and starts nothing because of that.
  if (known.end === "busy" || known.end === "storage") return false;
  return answer === "unheard" && known.stoodStill;
}

/** What becomes of the VM at the primary. */
export type Fate =
  /** It runs on; held output leaves. */
  | "goes-on"
  /** It is stopped, and no held output leaves. */
  | "stops"
  /**
   * It is stopped, and the connection is kept until then, since the secondary waits for its end.
   */
  | "is-theirs"
  /** It was shut down: its last output leaves. */
  | "has-ended";

/** Decides what becomes of the VM. */
export function afterFarewell(known: AtPrimaryEnd, answer: Answer): Fate {
  const { end, onSecondaryLoss } = known;
  if (end === "taken-over" || answer === "taken-over") return "is-theirs";
  // Without an answer, the secondary may be about to take over from its last transaction, which
  // does not include the guest's last output.
  if (end === "vm-ended") return answer === "heard" ? "has-ended" : "stops";
  if (end === "vm-died") return "stops";
  // It has given this primary up, and has not taken that back.
  if (answer === "given-up" || end === "silence" && answer === "unheard") return "stops";
  if (onSecondaryLoss === "continue") return "goes-on";
  // After an interruption the VM stops unless the secondary knows that it goes on.
  return answer === "heard" ? "goes-on" : "stops";
}

/** Whether, and how, protection begins again. */
export type NextTry = "again" | "again-later" | "never";

/** What is known of the tries so far. */
export interface Tries {
  /** `--retry`. */
  readonly retry: boolean;
  /** Whether there was ever a session with this secondary. */
  readonly wasLinked: boolean;
  /** Whether this was the first try. */
  readonly isFirst: boolean;
  /** Whether disks or NICs go through this process: then the VM depends on it. */
  readonly hasTaps: boolean;
}

/**
 * Decides whether to try again after an end that was dealt with.
 *
 * @param fate What became of the VM: a VM that is stopped until an operator decides is not
 *   protected.
 */
export function nextTry(known: AtPrimaryEnd, fate: Fate, tries: Tries): NextTry {
  const { end, onSecondaryLoss, isInterrupted } = known;
  const { retry, wasLinked, isFirst, hasTaps } = tries;
  if (isInterrupted || !retry || fate === "stops") return "never";
  if (onSecondaryLoss === "stop" && end !== "vm-rests") return "never";
  switch (end) {
    case "secondary-lost":
      // A secondary that never answered is the caller's mistake, unless the VM depends on this
      // process.
      if (isFirst && !wasLinked && !hasTaps) return "never";
      return wasLinked ? "again" : "again-later";
    case "silence":
    case "vm-rests":
      return "again";
    case "busy":
      return wasLinked ? "again" : "again-later";
    case "storage":
      return "again-later";
    default:
      return "never";
  }
}

/** The waits between tries, by the number of refusals: each try costs the guest time. */
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 60_000;

/**
 * How long to wait before the next try.
 *
 * @param refusals How many tries in a row were refused for the same reason, including this one.
 * @param isCheap Whether a try costs the guest nothing: nobody answers.
 * @returns Milliseconds.
 */
export function retryDelayMs(refusals: number, isCheap: boolean): number {
  if (isCheap) return FIRST_WAIT_MS;
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(refusals - 1, 16));
}
