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
 * **Why no acknowledged state is lost.** A takeover that failed leaves the replica as last committed.
 * `wait` keeps it in this process; `end` leaves it in its files, if it has any.
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
  /** Whether the VM goes to a command of ours, which can be started anew; else to our stdout. */
  readonly isCommand: boolean;
  /** `--control`: whether anybody can ask for another try. */
  readonly mayBeAskedAgain: boolean;
  /** Whether this process has been told to end. */
  readonly isInterrupted: boolean;
}

/** Decides whether the replica waits for another try, or this process ends with the reason. */
export function afterFailedTakeover(known: AtFailedTakeover): "wait" | "end" {
  const { failure, isCommand, mayBeAskedAgain, isInterrupted } = known;
  if (isInterrupted || !mayBeAskedAgain) return "end";
  switch (failure) {
    case "fence":
    case "disk":
    case "room":
      return "wait";
    case "successor":
      return isCommand ? "wait" : "end";
    case "ran":
    case "other":
      return "end";
  }
}
