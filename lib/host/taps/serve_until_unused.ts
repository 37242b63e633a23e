import type { Reactor } from "../system/reactor.ts";

/** How long taps stay after the last QEMU has disconnected: it may connect again. */
export const UNUSED_MS = 2000;

/** Serves taps on the reactor until no QEMU has used them for a while. */
export async function serveUntilUnused(
  taps: { readonly isUsed: boolean },
  reactor: Reactor,
  signal: AbortSignal,
): Promise<void> {
  let unusedSince = performance.now();
  while (performance.now() - unusedSince < UNUSED_MS) {
    await reactor.sleep(UNUSED_MS / 10, signal);
    if (taps.isUsed) unusedSince = performance.now();
  }
}
