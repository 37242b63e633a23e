import type { Reactor } from "../system/reactor.ts";

/** How long taps stay after the last QEMU has let go of them: it may be connecting again. */
export const UNUSED_MS = 2000;

/** Keeps serving taps, whose users run in the reactor, until nobody has used them for a while. */
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
