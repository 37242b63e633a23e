/**
 * Resolves after a time. This does not run a reactor: code that has a reactor uses `Reactor.sleep`.
 *
 * @param signal Ends the delay at once. @throws the signal's reason
 */
export function delay(durationMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const interrupt = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", interrupt);
      resolve();
    }, durationMs);
    signal?.addEventListener("abort", interrupt, { once: true });
  });
}
