/** How many bytes may be kept in memory. */
export const MAX_HELD_BACK_BYTES = 4 * 2 ** 20;
/** The least that an action takes. */
const ACTION_BYTES = 64;

interface Kept {
  readonly bytes: number;
  readonly action: () => void;
}

/** The actions of a sender behind a transaction that is being checked, in order. */
export class HeldBack {
  #kept: Kept[] = [];
  #bytes = 0;

  /** Whether no more should be read; what has been read is kept all the same. */
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

  /**
   * Carries out the kept actions until `stop` tells that the next transaction is being checked;
   * keeps the rest.
   */
  run(stop: () => boolean): void {
    const kept = this.#kept;
    this.clear();
    let next = 0;
    while (next < kept.length && !stop()) kept[next++].action();
    for (const { bytes, action } of kept.slice(next)) this.add(bytes, action);
  }
}
