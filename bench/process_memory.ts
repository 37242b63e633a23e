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
