/** How much of the processors a process has used, as the kernel counts it. */

/** A clock tick on every Linux there is. */
const TICK_MS = 10;

/** User and system time of a process, ms; NaN where it has ended. */
export function cpuMsOf(pid: number): number {
  try {
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1].split(" ");
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  } catch {
    return NaN;
  }
}

/**
 * Watches a process's time until it ends, when it is gone from /proc. Read every 10 ms: what was used
 * at the very end may be missed.
 *
 * @returns A function that stops watching and returns the time in ms.
 */
export function watchCpuMs(pid: number): () => number {
  let usedMs = 0;
  const read = () => {
    const ms = cpuMsOf(pid);
    if (ms > usedMs) usedMs = ms;
  };
  read();
  const timer = setInterval(read, 10);
  return () => {
    clearInterval(timer);
    return usedMs;
  };
}
