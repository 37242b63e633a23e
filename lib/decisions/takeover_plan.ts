/**
 * What a takeover does, and what follows one that failed: {@link planTakeover} and
 * {@link afterFailedTakeover}.
 *
 * **Why no case makes two VMs run.** Where the primary has handed the VM over, it has stopped it and
 * runs it no more: nobody is fenced. In every other case the primary may be alive, and the operator's
 * fence, where there is one, must succeed before a QEMU gets the state: a fence that fails is a failed
 * takeover. Each further try begins with the fence again. No further try is made where the VM may have
 * run here, since its replica is then of the past; nor where a reader of our stdout has had the stream,
 * whose end we do not see.
 *
 * **Why no acknowledged state is lost.** A takeover that failed leaves the replica as last committed,
 * unless the VM may have run here. `wait` keeps it in this process; `end` leaves it in its files, if it
 * has any.
 *
 * **Why no torn state is offered.** A guest that runs writes to its memory, which may be the replica's
 * files, and to its disks. So from the moment when a QEMU can let the VM run until that QEMU is known to
 * have refused, the replica is spent: whatever the failure is, and though this process is told to end
 * before it knows more.
 */

/** Why the secondary activates. */
export type TakeoverCause = "handover" | "loss" | "failover";

/** What is to be done. */
export interface TakeoverPlan {
  /** Whether the fence must succeed first. */
  readonly fences: boolean;
  /**
   * Whether the VM runs here whatever its state says; else a VM that was paused when it was handed
   * over stays so.
   */
  readonly runsAlways: boolean;
}

/** Plans a takeover. @param hasFence Whether `--fence` names a command. */
export function planTakeover(cause: TakeoverCause, hasFence: boolean): TakeoverPlan {
  const isOrderly = cause === "handover";
  return { fences: !isOrderly && hasFence, runsAlways: !isOrderly };
}

/** What has failed in a takeover. */
export type TakeoverFailure =
  /** Operators can mend these: the fence's command, a disk's copy, room for what is written. */
  | "fence"
  | "disk"
  | "room"
  /** The VM may have run here, and has ended. */
  | "ran"
  /** Whoever was to take the state has not. */
  | "successor"
  /** A bug, or the end of this process. */
  | "other";

/** What is known then. */
export interface AtFailedTakeover {
  readonly failure: TakeoverFailure;
  /** Whether a QEMU was in a position to let the VM run, and is not known to have refused. */
  readonly mayHaveRun: boolean;
  /** Whether the VM goes to a command of ours, which can be started anew; else to our stdout. */
  readonly isCommand: boolean;
  /** `--control`: whether anybody can ask for another try. */
  readonly mayBeAskedAgain: boolean;
  /** Whether this process has been told to end. */
  readonly isInterrupted: boolean;
}

/**
 * Decides whether the replica waits for another try, or this process ends with the reason: `end` leaves
 * the replica for the next process, `spent` lets nobody have it.
 */
export function afterFailedTakeover(known: AtFailedTakeover): "wait" | "end" | "spent" {
  const { failure, mayHaveRun, isCommand, mayBeAskedAgain, isInterrupted } = known;
  if (mayHaveRun || failure === "ran") return "spent";
  if (isInterrupted || !mayBeAskedAgain) return "end";
  switch (failure) {
    case "fence":
    case "disk":
    case "room":
      return "wait";
    case "successor":
      return isCommand ? "wait" : "end";
    case "other":
      return "end";
  }
}
