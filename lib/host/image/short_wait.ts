/**
 * Waits a moment for another thread without sleeping, if that has paid lately.
 *
 * Putting a thread to sleep and waking it costs some 30 µs each on a virtual machine whose
 * processors go idle (measured), more than a write to the page cache takes. Waiting without sleep
 * costs processor time instead: so a wait lasts no longer than {@link limitMs}, and after a wait in
 * vain there are no more, until an answer has come within twice the limit again.
 */
export class ShortWait {
  #pays = true;

  /** @param now A clock that only goes forward, in milliseconds. */
  constructor(readonly limitMs: number, private readonly now = () => performance.now()) {}

  /** @returns Whether the answer has come; never sleeps. */
  until(hasCome: () => boolean): boolean {
    if (hasCome()) return true;
    if (!this.#pays) return false;
    const end = this.now() + this.limitMs;
    do {
      if (hasCome()) return true;
    } while (this.now() < end);
    return this.#pays = false;
  }

  /** Notes an answer that has come after a sleep. @param waitedMs How long it took in all. */
  tell(waitedMs: number): void {
    if (waitedMs <= 2 * this.limitMs) this.#pays = true;
  }
}
