/**
 * What a secondary does when a transaction did not pass the check before its commit: there is no
 * room for it, or the standby does not load it.
 *
 * **Why no case drops an acknowledged state.** The check comes before the commit: whatever its
 * result, the replica is as acknowledged last, which the standby has loaded at that time. Only if
 * nothing was ever acknowledged does the process end, since then there is nothing to keep.
 *
 * **Why no case makes two VMs run.** Nothing is started here: the sender is refused, and its VM
 * goes on.
 */
export interface FailedCheck {
  /** Whether the transaction's session is still connected. */
  readonly isThere: boolean;
  /** Whether room is missing, of which there may be enough at the next try. */
  readonly isRoom: boolean;
  /** The last committed transaction; 0 if there is none. */
  readonly committed: number;
}

/** `end`: the sender is refused, and this process ends with the reason. */
export type FailedCheckStep = "nothing" | "refuse" | "end";

/** Decides what to do. */
export function afterFailedCheck({ isThere, isRoom, committed }: FailedCheck): FailedCheckStep {
  // The check was given up because its session has ended, and that has been dealt with.
  if (!isThere) return "nothing";
  if (isRoom || committed > 0) return "refuse";
  return "end";
}
