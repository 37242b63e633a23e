/**
 * Resolves after a time. The reactor does not turn meanwhile, unless somebody else has it do so:
 * beside one there is `Reactor.sleep`.
 *
 * @param signal Ends it at once. @throws its reason
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
