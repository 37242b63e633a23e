/**
 * Whether the QEMU that was given the VM's state has loaded it, as far as that shows from outside:
 * in a process that reads the bytes, and closes the descriptor when it has everything.
 *
 * A QEMU that has loaded its state closes the descriptor, and lives. A QEMU that cannot load its
 * state closes the descriptor, and exits a moment later. So only a QEMU that is alive some time
 * later has loaded its state.
 *
 * **Why no answer makes two VMs run.** `failed` keeps the replica, so that an operator or a later
 * recv can start the VM from it. This is the answer only if the process is gone, so the VM that is
 * started next is the only one; and the guest of the failed QEMU has run for {@link CLOSED_MS} at
 * the longest, if it has run at all.
 */
export interface SuccessorSight {
  /** Whether a QEMU with `-incoming` was found among the readers. */
  readonly isQemu: boolean;
  readonly isAlive: boolean;
  /** Its exit code, if known. */
  readonly exitCode: number | undefined;
  /** How long ago it closed the descriptor, in milliseconds; `undefined` while it is open. */
  readonly closedMs: number | undefined;
  /** How long ago the last bytes were written. */
  readonly sinceMs: number;
}

export type SuccessorFate = "wait" | "loaded" | "failed";

/**
 * How long a QEMU must live after closing the descriptor to count as loaded. Measured: if it fails,
 * it exits within 10 ms.
 */
export const CLOSED_MS = 300;
/** The longest time for loading a state. */
export const LOAD_MS = 10_000;

/** Judges; to be called again as long as the result is `wait`. */
export function judgeSuccessor(seen: SuccessorSight): SuccessorFate {
  const { isQemu, isAlive, exitCode, closedMs, sinceMs } = seen;
  if (!isAlive) {
    // Another program behind the pipe ends when it has everything; only its exit status tells more.
    if (exitCode === undefined) return isQemu ? "failed" : "loaded";
    return exitCode === 0 ? "loaded" : "failed";
  }
  if (!isQemu) return sinceMs >= CLOSED_MS ? "loaded" : "wait";
  if (closedMs !== undefined && closedMs >= CLOSED_MS) return "loaded";
  // It may have been told to keep its standard input open: more cannot be known.
  return sinceMs >= LOAD_MS ? "loaded" : "wait";
}
