import { getLogger, type Logger } from "@logtape/logtape";
import { type NextTry, type PrimaryEnd, retryDelayMs } from "../../decisions/primary_end.ts";
import type { Reactor } from "../system/reactor.ts";

/** The logger, or a test's. */
export type Say = Pick<Logger, "info" | "warn">;

/**
 * Logs why sessions fail, and waits before the next try: each reason is logged once, and once that
 * it is over.
 */
export class Retries {
  readonly #peer: string;
  /** Why the last tries failed; empty if the last one did not fail. */
  #reason = "";
  #count = 0;
  #since = 0;
  readonly #log: Say;

  constructor(peer: string, say: Say = getLogger(["kemari", "protect"])) {
    this.#peer = peer;
    this.#log = say;
  }

  /** Whether the secondary has no room: then what every try would log again has been logged. */
  get isFull(): boolean {
    return this.#reason === "storage";
  }

  /** Logs a connection to a secondary. */
  connected(software: string): void {
    // A secondary that is full answers every try.
    if (this.isFull) return;
    this.#log.info("connected to {peer}: {software}", { peer: this.#peer, software });
  }

  /** The VM is protected. */
  over(): void {
    if (this.isFull) {
      this.#log.info("{peer} takes the VM's state again, after {tries} tries in {seconds} s", {
        peer: this.#peer,
        tries: this.#count,
        seconds: Math.round((performance.now() - this.#since) / 1000),
      });
    }
    this.#reason = "";
    this.#count = 0;
  }

  /** Logs a try that failed, and waits before the next. */
  async wait(
    next: Exclude<NextTry, "never">,
    end: PrimaryEnd,
    error: unknown,
    reactor: Pick<Reactor, "sleep">,
    signal: AbortSignal,
  ): Promise<void> {
    const words = (error as Error).message;
    if (next === "again") {
      const what = end === "secondary-lost" ? "secondary lost: " : "";
      this.#log.warn(`${what}{reason}; the VM goes on unprotected, trying again`, {
        reason: words,
      });
      this.#reason = "";
      return;
    }
    const isFull = end === "storage";
    const reason = isFull ? end : words;
    if (reason !== this.#reason) {
      this.#count = 0;
      this.#since = performance.now();
      this.#log.warn("{reason}; the VM is unprotected, trying again", { reason: words });
    }
    this.#reason = reason;
    this.#count++;
    await reactor.sleep(retryDelayMs(this.#count, !isFull), signal);
  }
}
