import { getLogger } from "@logtape/logtape";
import type { Reactor } from "../system/reactor.ts";

const log = getLogger(["kemari", "recv"]);

/** The first is logged at once; of those that follow in this time, only the number. */
const QUIET_MS = 10_000;

/** Logs connections that were not senders', in a few lines however many there are. */
export class StrangerLog {
  readonly #reactor: Reactor;
  readonly #quietMs: number;
  #more = 0;
  #cancel: (() => void) | undefined;

  constructor(reactor: Reactor, quietMs = QUIET_MS) {
    this.#reactor = reactor;
    this.#quietMs = quietMs;
  }

  /** @param what Message about the connection; `reason` says why it was refused or closed. */
  tell(what: string, reason: string): void {
    if (this.#cancel !== undefined) {
      this.#more++;
      return;
    }
    log.warn("{what}: {reason}", { what, reason });
    this.#wait();
  }

  /** Logs at once what was delayed. */
  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#sayRest();
  }

  #wait(): void {
    this.#cancel = this.#reactor.after(this.#quietMs, () => {
      this.#cancel = undefined;
      if (this.#sayRest()) this.#wait();
    });
  }

  #sayRest(): boolean {
    if (this.#more === 0) return false;
    log.warn("{more} more connections have come to nothing since", { more: this.#more });
    this.#more = 0;
    return true;
  }
}
