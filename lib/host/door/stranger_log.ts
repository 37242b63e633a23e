import { getLogger } from "@logtape/logtape";
import type { Reactor } from "../system/reactor.ts";

const log = getLogger(["kemari", "recv"]);

/** One of them is told of at once; of those that follow in this time, how many there were. */
const QUIET_MS = 10_000;

/** Tells of connections that came to nothing, however many there are, in a few lines. */
export class StrangerLog {
  readonly #reactor: Reactor;
  readonly #quietMs: number;
  #more = 0;
  #cancel: (() => void) | undefined;

  constructor(reactor: Reactor, quietMs = QUIET_MS) {
    this.#reactor = reactor;
    this.#quietMs = quietMs;
  }

  /** @param what Who was turned away, or went; `reason` says why. */
  tell(what: string, reason: string): void {
    if (this.#cancel !== undefined) {
      this.#more++;
      return;
    }
    log.warn("{what}: {reason}", { what, reason });
    this.#wait();
  }

  /** Says now what was to be said later. */
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
