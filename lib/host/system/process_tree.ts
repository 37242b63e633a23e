/** What a process has started. */

/** Ends a shell and what it has started; it may have become that itself. */
export function endTree(pid: number): void {
  for (const id of [...childrenOf(pid), pid]) {
    try {
      Deno.kill(id, "SIGTERM");
    } catch {
      // It has ended by itself.
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
