import { TransportError } from "../../errors.ts";
import { delay } from "../../host/system/delay.ts";
import { never } from "../../host/system/never.ts";

/** The longest that anything may take, unless it is told otherwise. */
const LIMIT_MS = 60_000;
const POLL_MS = 20;

interface Patience {
  /** Ends the waiting at once. */
  readonly signal?: AbortSignal;
  readonly limitMs?: number;
}

/**
 * Waits until a condition holds, asking again and again.
 *
 * @param what It waits for ("the takeover"), or what is wrong while it waits; the error says it.
 * @throws {TransportError} if it does not hold in time; the signal's reason.
 */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  { signal = never, limitMs = LIMIT_MS }: Patience = {},
): Promise<void> {
  const end = performance.now() + limitMs;
  while (!await condition()) {
    signal.throwIfAborted();
    if (performance.now() > end) {
      throw new TransportError("lab", "read", `waited ${limitMs / 1000} s in vain: ${what}`);
    }
    await delay(POLL_MS, signal);
  }
}
