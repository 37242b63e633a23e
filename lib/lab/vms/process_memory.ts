/** What a process has in memory, as the kernel counts it. */

/** In bytes. */
interface ProcessMemory {
  readonly resident: number;
  /** What it has for itself: heap, stacks, and a guest's RAM that is no file. */
  readonly anonymous: number;
}

/**
 * Counts a process's pages one by one, which is exact: the sums in /proc/PID/status lag behind by
 * some hundred kilobytes.
 *
 * @throws {Deno.errors.NotFound} It has ended.
 */
export function memoryOf(pid: number): ProcessMemory {
  const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s*(\\d+) kB`, "m").exec(text)?.[1]) * 1024;
  return { resident: field("Rss"), anonymous: field("Anonymous") };
}

/**
 * Watches the most memory that a process ever had resident (VmHWM), which is gone from /proc when
 * the process is. Read every 10 ms: what it had at its very end may be missed.
 *
 * @returns A function that stops watching and returns the peak in bytes.
 */
export function watchPeakMemory(pid: number): () => number {
  let peakBytes = 0;
  const read = () => {
    try {
      const kib = /^VmHWM:\s*(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1];
      if (kib !== undefined) peakBytes = Math.max(peakBytes, Number(kib) * 1024);
    } catch {
      // It has ended.
    }
  };
  read();
  const timer = setInterval(read, 10);
  return () => {
    clearInterval(timer);
    return peakBytes;
  };
}
