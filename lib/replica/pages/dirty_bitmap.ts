const WORD_BITS = 5;
const GROUP_BITS = 10;

/**
 * A set of pages: one bit a page, and above it one bit for each word that has any.
 *
 * A visit skips 1,024 clean pages at a time, so that its cost depends on the number of dirty pages
 * rather than on the guest's size: a 64 GiB block is 2 MiB of bits and 64 KiB of bits above them.
 * `kemari bench bitmap` measures it.
 */
export class DirtyBitmap {
  readonly #words: Uint32Array;
  /** Bit n: whether `#words[n]` is not 0. */
  readonly #groups: Uint32Array;
  #count = 0;

  /** @param pages The number of pages, which are numbered from 0. */
  constructor(readonly pages: number) {
    this.#words = new Uint32Array(Math.ceil(pages / 32));
    this.#groups = new Uint32Array(Math.ceil(this.#words.length / 32));
  }

  /** How many pages are in the set. */
  get count(): number {
    return this.#count;
  }

  has(page: number): boolean {
    return (this.#words[page >>> WORD_BITS] >>> (page & 31) & 1) !== 0;
  }

  /** Adds a page. @returns False if it was in the set already. */
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

  /** Removes a page. @returns False if it was not in the set. */
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

  /** The first page from `from` on that is in the set, or `pages`. */
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

  /** Removes all pages. */
  reset(): void {
    this.#travel(() => {}, true);
  }

  #travel(visit: (page: number) => void, empty: boolean): void {
    const words = this.#words;
    const groups = this.#groups;
    // Ends with the last page that is in the set.
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

/** The number of the lowest bit that is set; not defined for 0. */
function lowestBit(word: number): number {
  return 31 - Math.clz32(word & -word);
}
