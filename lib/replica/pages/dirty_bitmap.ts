const WORD_BITS = 5;
const GROUP_BITS = 10;

/**
 * A set of pages: one bit a page, and above it one bit for each word that has any.
 *
 * Whoever travels it skips 1,024 pages with one look, so that a few dirty pages cost what they
 * are worth and not what the guest's size is: a 64 GiB block is 2 MiB of bits and 64 KiB of bits
 * above them. `kemari bench bitmap` measures it.
 */
export class DirtyBitmap {
  readonly #words: Uint32Array;
  /** Bit n of it: `#words[n]` is not 0. */
  readonly #groups: Uint32Array;
  #count = 0;

  /** @param pages How many there are; they are numbered from 0. */
  constructor(readonly pages: number) {
    this.#words = new Uint32Array(Math.ceil(pages / 32));
    this.#groups = new Uint32Array(Math.ceil(this.#words.length / 32));
  }

  /** How many pages are in it. */
  get count(): number {
    return this.#count;
  }

  has(page: number): boolean {
    return (this.#words[page >>> WORD_BITS] >>> (page & 31) & 1) !== 0;
  }

  /** Puts a page in. @returns False if it was there already. */
  set(page: number): boolean {
    const index = page >>> WORD_BITS;
    const word = this.#words[index];
    const bit = 1 << (page & 31);
    if ((word & bit) !== 0) return false;
    if (word === 0) this.#groups[index >>> WORD_BITS] |= 1 << (index & 31);
    this.#words[index] = word | bit;
    this.#count++;
    return true;
  }

  /** Takes a page out. @returns False if it was not there. */
  clear(page: number): boolean {
    const index = page >>> WORD_BITS;
    const word = this.#words[index];
    const bit = 1 << (page & 31);
    if ((word & bit) === 0) return false;
    const rest = this.#words[index] = word & ~bit;
    if (rest === 0) this.#groups[index >>> WORD_BITS] &= ~(1 << (index & 31));
    this.#count--;
    return true;
  }

  /** The first page from `from` on that is in it, or `pages`. */
  next(from: number): number {
    if (from >= this.pages) return this.pages;
    let index = from >>> WORD_BITS;
    const rest = this.#words[index] >>> (from & 31);
    if (rest !== 0) return from + lowestBit(rest);
    index++;
    let group = index >>> WORD_BITS;
    if (group >= this.#groups.length) return this.pages;
    let busy = this.#groups[group] >>> (index & 31) << (index & 31);
    while (busy === 0) {
      if (++group === this.#groups.length) return this.pages;
      busy = this.#groups[group];
    }
    index = (group << WORD_BITS) + lowestBit(busy);
    return (index << WORD_BITS >>> 0) + lowestBit(this.#words[index]);
  }

  /** Visits every page in ascending order. */
  forEach(visit: (page: number) => void): void {
    this.#travel(visit, false);
  }

  /** Visits every page in ascending order, and leaves the set empty. */
  drain(visit: (page: number) => void): void {
    this.#travel(visit, true);
  }

  /** Takes every page out. */
  reset(): void {
    this.#travel(() => {}, true);
  }

  #travel(visit: (page: number) => void, empty: boolean): void {
    const words = this.#words;
    const groups = this.#groups;
    // Not a page beyond the last one that is in it is looked at.
    let left = this.#count;
    if (empty) this.#count = 0;
    for (let group = 0; left > 0; group++) {
      let busy = groups[group];
      if (busy === 0) continue;
      if (empty) groups[group] = 0;
      const base = group * (1 << GROUP_BITS);
      while (busy !== 0) {
        const place = lowestBit(busy);
        busy &= busy - 1;
        const index = (group << WORD_BITS) + place;
        let word = words[index];
        if (empty) words[index] = 0;
        const first = base + (place << WORD_BITS);
        while (word !== 0) {
          visit(first + lowestBit(word));
          word &= word - 1;
          left--;
        }
      }
    }
  }
}

/** Number of the lowest bit that is set; not to be asked of 0. */
function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}
