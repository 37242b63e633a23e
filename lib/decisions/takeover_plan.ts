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
 * unless the VM may have run here. `wait` and `again` keep it in this process; `end` leaves it in its
 * files, if it has any. Whatever a disk answers, or the place where something is written, the process
 * that has the replica does not end for it: what is committed waits in memory until that is mended.
 * Somebody who can ask does so then. Where nobody can, the try is made again by itself, as long as
 * nobody else can have the VM: the primary gave it away, or was fenced. A primary that was not may live
 * and go on; by the time that the disk is mended the replica would be of the past, and the fence would
 * kill the better VM. So its sender is waited for; where none can come either, nothing can ever come of
 * the replica in this process.
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
  /** Whether a sender can reach us again. */
  readonly mayComeBack: boolean;
  /** Whether the primary's VM is known to run no more: it was handed over, or is fenced. */
  readonly isPrimaryOut: boolean;
  /** Whether this process has been told to end. */
  readonly isInterrupted: boolean;
}

/** What is done then. */
export type FailedTakeoverStep =
  /** The replica waits for somebody who asks for another try, or for a sender. */
  | "wait"
  /** The same takeover is tried again in a while. */
  | "again"
  /** This process ends with the reason: `end` leaves the replica for the next one, `spent` for nobody. */
  | "end"
  | "spent";

/** Decides what is done then. */
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
