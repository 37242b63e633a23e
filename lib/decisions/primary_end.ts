/**
 * What a primary does when a session with its secondary has ended: {@link farewell}, {@link mustAsk},
 * and, once the secondary has answered or not, {@link afterFarewell}.
 *
 * **Why no case makes two VMs run.** The VM goes on here only where the secondary knows that it does
 * (it answered LEAVE), or where the operator has chosen that it goes on without one
 * (`--on-secondary-loss continue`) and the secondary has not said that it may start it: whether
 * it then has the right to is what fencing is for, which the secondary needs for `--on-loss
 * activate`. It says so in two words. `taken-over`: the VM is its own, which nothing overrules.
 * `silence`: it has heard nothing from us for its grace time, has given us up, and does what its
 * `--on-loss` says, which we do not know. So we ask, before anything gets out; and where nobody
 * answers the VM stops, whatever the operator has chosen for a loss: a `kemari recv … | qemu` ends
 * when it has taken over and its listener with it, so that a refused connection is what a
 * secondary looks like whose VM runs. No other try follows then (`nextTry`): whether the VM runs there
 * is for somebody to look at who can.
 *
 * A primary that only knows that it stood still for about as long as the secondary's patience (SIGSTOP,
 * a frozen cgroup, a host that swaps) asks as well: it may have been taken for dead. Where nobody
 * answers, `--on-secondary-loss` decides, as for any loss: nobody has said that we were given up, and
 * a secondary that died while this host swapped is no reason to stop the VM for good.
 *
 * **Why no healthy secondary is made to take over.** The end of a connection without LEAVE is a loss to
 * the secondary, which `--on-loss activate` answers at once: no other connection can come before it. So
 * the session itself is told first, however it has ended at our side, and its connection is closed only
 * behind the answer: a secondary that was too slow, or not heard for a while, is there all the same, and
 * a primary that stood still has mostly been missed by nobody. A new connection is for what the session
 * cannot say any more: it has no answer, or the secondary has ended it by `silence`.
 *
 * **Why no acknowledged state is lost.** `stops` and `goes-on` keep QEMU; and where the VM's host is
 * about to be asked for, its output is still held, so that nobody has seen what the secondary lacks.
 * Of a VM that has died, nothing more gets out: the secondary must find a loss. Of one that was shut
 * down, what it said last gets out when the secondary has acknowledged that it starts nothing: it is
 * true of this host's disks then, and those are the only ones that count from there on. A copy of a disk
 * at the secondary lacks what the guest wrote since its last transaction until the VM is protected again.
 */

/** Why a session ended. */
export type PrimaryEnd =
  /** Whoever runs protect ends it. */
  | "interrupted"
  /** The connection failed, or the secondary was silent. */
  | "secondary-lost"
  /** The secondary was there, and heard nothing from us for its grace time. */
  | "silence"
  /** The VM is the secondary's. */
  | "taken-over"
  /** The secondary has another sender, or activates. */
  | "busy"
  /** What keeps the replica cannot be written there. */
  | "storage"
  /** QEMU died. */
  | "vm-died"
  /** The VM was shut down. */
  | "vm-ended"
  /** The VM is here, and cannot be protected at the moment: it sleeps, or its migration was cancelled. */
  | "vm-rests"
  /** Anything that trying again does not mend: a refusal, bytes at fault, a bug. */
  | "fault";

/** What a primary knows then. */
export interface AtPrimaryEnd {
  readonly end: PrimaryEnd;
  /** `--on-secondary-loss`. */
  readonly onSecondaryLoss: "continue" | "stop";
  /** Whether we may have been taken for dead: we stood still for about as long as that takes. */
  readonly stoodStill: boolean;
  /** Whether whoever runs protect has ended it by now, whatever the session's end was. */
  readonly isInterrupted: boolean;
}

/**
 * What the secondary is told first, over the session unless that has ended by its `silence`: which LEAVE;
 * or nothing, where it must find a loss, or has nothing to be told.
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
      // A VM that is to stop here asks for nothing: the secondary may run it.
      return onSecondaryLoss === "stop" && !isInterrupted ? "nothing" : "goes-on";
  }
}

/** What the secondary answered. */
export type Answer =
  /** It knows. */
  | "heard"
  /** It said nothing, or could not be reached. */
  | "unheard"
  /** It has given us up, since it heard nothing from us: it may be about to take over, or have done so. */
  | "given-up"
  /** The VM is its own. */
  | "taken-over";

/**
 * Decides whether the secondary is asked, over a new connection, whether it has taken over, and told that
 * the VM goes on here; all output is held until it answers.
 *
 * @param answer What it has answered over the session; `given-up` where it has ended that so itself.
 */
export function mustAsk(known: AtPrimaryEnd, answer: Answer): boolean {
  if (farewell(known) !== "goes-on") return false;
  if (answer === "given-up") return true;
  // It was there to refuse us, and starts nothing for that.
  if (known.end === "busy" || known.end === "storage") return false;
  return answer === "unheard" && known.stoodStill;
}

/** What becomes of the VM at the primary. */
export type Fate =
  /** It runs on; what was held gets out. */
  | "goes-on"
  /** It is stopped, and nothing that was held gets out. */
  | "stops"
  /** It is stopped, and the connection is kept until it is: the secondary waits for its end. */
  | "is-theirs"
  /** It was shut down: what it said last gets out. */
  | "has-ended";

/** Decides what becomes of the VM. */
export function afterFarewell(known: AtPrimaryEnd, answer: Answer): Fate {
  const { end, onSecondaryLoss } = known;
  if (end === "taken-over" || answer === "taken-over") return "is-theirs";
  // Unheard, the secondary may be about to take over from its last transaction, of which the guest's
  // last words are no part.
  if (end === "vm-ended") return answer === "heard" ? "has-ended" : "stops";
  if (end === "vm-died") return "stops";
  // It has not taken back that it gave us up.
  if (answer === "given-up" || end === "silence" && answer === "unheard") return "stops";
  if (onSecondaryLoss === "continue") return "goes-on";
  // Interrupted, it stops where nobody knows that it does not.
  return answer === "heard" ? "goes-on" : "stops";
}

/** Whether, and how, protection begins again. */
export type NextTry = "again" | "again-later" | "never";

/** What is known of the tries so far. */
export interface Tries {
  /** `--retry`. */
  readonly retry: boolean;
  /** Whether this secondary has ever been spoken to. */
  readonly wasLinked: boolean;
  /** Whether this was the first try. */
  readonly isFirst: boolean;
  /** Whether disks or NICs go through us: then the VM depends on our being here. */
  readonly hasTaps: boolean;
}

/**
 * Decides whether to try again, of an end that was dealt with.
 *
 * @param fate What became of the VM: one that stands still until somebody decides is not protected.
 */
export function nextTry(known: AtPrimaryEnd, fate: Fate, tries: Tries): NextTry {
  const { end, onSecondaryLoss, isInterrupted } = known;
  const { retry, wasLinked, isFirst, hasTaps } = tries;
  if (isInterrupted || !retry || fate === "stops") return "never";
  if (onSecondaryLoss === "stop" && end !== "vm-rests") return "never";
  switch (end) {
    case "secondary-lost":
      // A secondary that was never there is the caller's mistake, unless the VM depends on us.
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

/** What a try costs the guest is not small; who was refused so often waits longer. */
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 60_000;

/**
 * How long to wait before the next try.
 *
 * @param refusals How often in a row it was refused for the same reason, this time included.
 * @param isCheap Whether a try costs the guest nothing: nobody answers.
 * @returns Milliseconds.
 */
export function retryDelayMs(refusals: number, isCheap: boolean): number {
  if (isCheap) return FIRST_WAIT_MS;
  return Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(refusals - 1, 16));
}
