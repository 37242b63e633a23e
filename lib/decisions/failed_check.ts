/**
 * What a secondary does when a transaction that is not yet committed did not pass its check: there is
 * no room for it, or the standby does not load it.
 *
 * **Why no case drops an acknowledged state.** The check comes before the commit: whatever it says,
 * the replica is what was acknowledged last, which the standby has loaded in its time. Only where
 * nothing was ever acknowledged does the process end, since then there is nothing to keep.
 *
 * **Why no case makes two VMs run.** Nothing is started here: the sender is refused, and its VM goes on.
 */
export interface FailedCheck {
  /** Whether the session is still there whose transaction it is. */
  readonly isThere: boolean;
  /** Whether it is room that is missing, which may be there at the next try. */
  readonly isRoom: boolean;
  /** The last committed transaction; 0 if there is none. */
  readonly committed: number;
}

/** `end`: the sender is refused, and this process ends with the reason. */
export type FailedCheckStep = "nothing" | "refuse" | "end";

/** Decides what is done then. */
export function afterFailedCheck({ isThere, isRoom, committed }: FailedCheck): FailedCheckStep {
  // It was given up because its session has ended, and that has been dealt with.
  if (!isThere) return "nothing";
  if (isRoom || committed > 0) return "refuse";
  return "end";
}
