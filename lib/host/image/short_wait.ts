/**
 * Waits for another thread without going to sleep, for a moment, where that has paid lately.
 *
 * To put a thread to sleep and to wake it costs some 30 µs each way on a virtual machine whose
 * processors go idle (measured), which is more than a write to the page cache takes. Whoever waits
 * on the spot pays with a processor's time instead: so no longer than {@link limitMs}, and only as
 * long as what is waited for comes that soon. After a wait in vain the next ones are left out, until
 * something has come within twice the limit again.
 */
export class ShortWait {
  #pays = true;

  /** @param now A clock that only goes forward, in milliseconds. */
  constructor(readonly limitMs: number, private readonly now = () => performance.now()) {}

  /** @returns Whether it has come; never sleeps. */
  until(hasCome: () => boolean): boolean {
    if (hasCome()) return true;
    if (!this.#pays) return false;
    const end = this.now() + this.limitMs;
    do {
      if (hasCome()) return true;
    } while (this.now() < end);
    return this.#pays = false;
  }

  /** It has come after a sleep. @param waitedMs How long it was waited for in all. */
  tell(waitedMs: number): void {
    if (waitedMs <= 2 * this.limitMs) this.#pays = true;
  }
}
