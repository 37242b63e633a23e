/**
 * Takes whole records of `bytes[start, end)` and returns one past the last byte taken; the rest is
 * presented again, in front of more bytes.
 */
type TakeRecords = (bytes: Uint8Array, start: number, end: number) => number;

/**
 * Feeds a parser that takes whole records from pieces that are cut anywhere.
 *
 * Only a record that straddles two pieces is copied; all others are parsed in place. The carried
 * part grows to the longest record, which the parser bounds.
 */
export class Carry {
  #kept = new Uint8Array(8192);
  #keptBytes = 0;

  /** How many bytes wait for the rest of their record. */
  get pendingBytes(): number {
    return this.#keptBytes;
  }

  /** The bytes that wait; valid until the next {@link feed}. */
  get pending(): Uint8Array {
    return this.#kept.subarray(0, this.#keptBytes);
  }

  /** Feeds `bytes[start, end)` to `take`. The bytes may be reused on return. */
  feed(bytes: Uint8Array, start: number, end: number, take: TakeRecords): void {
    let at = start;
    // Complete the straddling record with as few bytes as possible: try twice as many each time.
    let step = 512;
    while (this.#keptBytes > 0 && at < end) {
      const before = this.#keptBytes;
      const more = Math.min(end - at, step);
      this.#append(bytes, at, at + more);
      const taken = take(this.#kept, 0, this.#keptBytes);
      if (taken >= before) {
        at += taken - before;
        this.#keptBytes = 0;
        break;
      }
      // Not even the carried bytes were taken: keep everything that is left.
      this.#kept.copyWithin(0, taken, this.#keptBytes);
      this.#keptBytes -= taken;
      at += more;
      step *= 2;
    }
    while (at < end) {
      const taken = take(bytes, at, end);
      if (taken === at) break;
      at = taken;
    }
    if (at < end) this.#append(bytes, at, end);
  }

  #append(bytes: Uint8Array, start: number, end: number): void {
    const needed = this.#keptBytes + end - start;
    if (needed > this.#kept.length) {
      const grown = new Uint8Array(Math.max(needed, 2 * this.#kept.length));
      grown.set(this.#kept.subarray(0, this.#keptBytes));
      this.#kept = grown;
    }
    this.#kept.set(bytes.subarray(start, end), this.#keptBytes);
    this.#keptBytes = needed;
  }
}
