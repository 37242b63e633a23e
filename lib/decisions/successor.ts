/**
 * Whether the QEMU that was given the VM's state has loaded it, as far as it can be seen from outside:
 * by a process that reads our bytes, and lets go of them when it has all that it wants.
 *
 * A QEMU that has loaded its state closes the descriptor it came on, and lives. One that cannot load
 * it closes the descriptor, and exits a moment later. So life alone says nothing until a moment after.
 *
 * **Why no answer makes two VMs run.** `failed` keeps the replica, for an operator or a later recv to
 * start it from. It is answered only of a process that is gone, so nothing runs beside what is started
 * next; and its guest has run for {@link CLOSED_MS} at the longest, where it has run at all.
 */
export interface SuccessorSight {
  /** Whether a QEMU with `-incoming` was found among those who read. */
  readonly isQemu: boolean;
  readonly isAlive: boolean;
  /** What it ended with, where that is known. */
  readonly exitCode: number | undefined;
  /** How long ago it closed our bytes, in milliseconds; `undefined` while it has them open. */
  readonly closedMs: number | undefined;
  /** How long ago it was given the last of them. */
  readonly sinceMs: number;
}

export type SuccessorFate = "wait" | "loaded" | "failed";

/** How long a QEMU that lets go of its state must live to have loaded it. Measured: it exits within 10 ms. */
export const CLOSED_MS = 300;
/** How long a state may take to be loaded, at the most. */
export const LOAD_MS = 10_000;

/** Decides, and is asked again for as long as it says `wait`. */
export function judgeSuccessor(seen: SuccessorSight): SuccessorFate {
  const { isQemu, isAlive, exitCode, closedMs, sinceMs } = seen;
  if (!isAlive) {
    // Whatever else may stand behind a pipe ends when it has everything; only a status tells more.
    if (exitCode === undefined) return isQemu ? "failed" : "loaded";
    return exitCode === 0 ? "loaded" : "failed";
  }
  if (!isQemu) return sinceMs >= CLOSED_MS ? "loaded" : "wait";
  if (closedMs !== undefined && closedMs >= CLOSED_MS) return "loaded";
  // It may have been told to keep its standard input: nobody can say more of it.
  return sinceMs >= LOAD_MS ? "loaded" : "wait";
}
