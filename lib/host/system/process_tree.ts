/** The processes that a process has started. */

/**
 * Ends a shell and the processes that it has started. The shell may have replaced itself by its
 * command (exec).
 */
export function endTree(pid: number, signal: Deno.Signal = "SIGTERM"): void {
  for (const id of [...childrenOf(pid), pid]) {
    try {
      Deno.kill(id, signal);
    } catch {
      // The process has ended by itself.
    }
  }
}

/** The processes that a process has started. */
export function childrenOf(pid: number): number[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`)
      .split(" ").filter((id) => id !== "").map(Number);
  } catch {
    return [];
  }
}
