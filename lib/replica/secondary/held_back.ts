/** How much is kept in memory. */
export const MAX_HELD_BACK_BYTES = 4 * 2 ** 20;
/** What keeping one thing takes, however small. */
const ACTION_BYTES = 64;

interface Kept {
  readonly bytes: number;
  readonly action: () => void;
}

/** What a sender does behind a transaction that is being looked at, in order. */
export class HeldBack {
  #kept: Kept[] = [];
  #bytes = 0;

  /** Whether nothing more should be read: what has been read is kept all the same. */
  get isFull(): boolean {
    return this.#bytes >= MAX_HELD_BACK_BYTES;
  }

  /** @param bytes What the action keeps in memory. */
  add(bytes: number, action: () => void): void {
    this.#kept.push({ bytes, action });
    this.#bytes += bytes + ACTION_BYTES;
  }

  clear(): void {
    this.#kept = [];
    this.#bytes = 0;
  }

  /** Does what is kept, until `stop` says that the next is being looked at: the rest is kept behind that. */
  run(stop: () => boolean): void {
    const kept = this.#kept;
    this.clear();
    let next = 0;
    while (next < kept.length && !stop()) kept[next++].action();
    for (const { bytes, action } of kept.slice(next)) this.add(bytes, action);
  }
}
