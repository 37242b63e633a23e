/**
 * What a takeover does, and what follows one that failed: {@link planTakeover} and
 * {@link afterFailedTakeover}.
 *
 * **Why no case makes two VMs run.** If the primary has handed the VM over, it has stopped its VM
 * for good, and is not fenced. In every other case the primary may be alive, and the operator's
 * fence, if there is one, must succeed before a QEMU gets the state: a fence that fails is a failed
 * takeover. Each further try begins with the fence again. No further try is made if the VM may have
 * run here, since the replica is then outdated; nor if a reader of stdout has had the stream, since
 * that process's end cannot be seen.
 *
 * **Why no acknowledged state is lost.** A takeover that failed leaves the replica as last
 * committed, unless the VM may have run here. `wait` and `again` keep it in this process; `end`
 * leaves it in its files, if it has any. Errors of a disk, or of other storage, do not end the
 * process that has the replica: what is committed waits in memory until the storage is repaired. If
 * an operator can ask for another try, the process waits for that. If not, it tries again by
 * itself, as long as no other host can have the VM: the primary handed it over, or was fenced. A
 * primary that was not fenced may be alive and go on; by the time that the disk is repaired, the
 * replica would be outdated, and the fence would kill the better VM. So the process waits for that
 * primary's sender; if no sender can come either, the replica is of no use in this process.
 *
 * **Why no torn state is offered.** A guest that runs writes to its memory, which may be the
 * replica's files, and to its disks. So from the moment when a QEMU can let the VM run, until that
 * QEMU is known to have refused, the replica is spent: whatever the failure, and also if this
 * process is told to end before it knows more.
 */

/** Why the secondary activates. */
export type TakeoverCause = "handover" | "loss" | "failover";

/** What to do. */
export interface TakeoverPlan {
  /** Whether the fence must succeed first. */
  readonly fences: boolean;
  /**
   * Whether the VM is to run whatever its state says; otherwise a VM that was paused when it was
   * handed over stays paused.
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
  /** What operators can repair: the fence's command, a disk's copy, room for what is written. */
  | "fence"
  | "disk"
  | "room"
  /** The VM may have run here, and has ended. */
  | "ran"
  /** The process that was to take the state has not. */
  | "successor"
  /** A bug, or the end of this process. */
  | "other";

/** What is known then. */
export interface AtFailedTakeover {
  readonly failure: TakeoverFailure;
  /** Whether a QEMU was in a position to let the VM run, and is not known to have refused. */
  readonly mayHaveRun: boolean;
  /** Whether the VM goes to a command, which can be started anew; otherwise to stdout. */
  readonly isCommand: boolean;
  /** `--control`: whether an operator can ask for another try. */
  readonly mayBeAskedAgain: boolean;
  /** Whether a sender can reach this end again. */
  readonly mayComeBack: boolean;
  /**
   * Whether the primary's VM is known not to run any more: it was handed over, or the primary is
   * fenced.
   */
  readonly isPrimaryOut: boolean;
  /** Whether this process has been told to end. */
  readonly isInterrupted: boolean;
}

/** What is done then. */
export type FailedTakeoverStep =
  /** The replica waits for an operator who asks for another try, or for a sender. */
  | "wait"
  /** The same takeover is tried again in a while. */
  | "again"
  /**
   * This process ends with the reason: `end` leaves the replica for the next one, `spent` does not.
   */
  | "end"
  | "spent";

/** Decides what to do. */
export function afterFailedTakeover(known: AtFailedTakeover): FailedTakeoverStep {
  const { failure, mayHaveRun, isCommand, mayBeAskedAgain, isInterrupted } = known;
  if (mayHaveRun || failure === "ran") return "spent";
  if (isInterrupted || failure === "other") return "end";
  if (failure === "successor" && !isCommand) return "end";
  if (mayBeAskedAgain) return "wait";
  if (failure !== "disk" && failure !== "room") return "end";
  if (known.isPrimaryOut) return "again";
  return known.mayComeBack ? "wait" : "end";
}
