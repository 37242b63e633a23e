const LEAF_BITS = 12;
const LEAF_PAGES = 1 << LEAF_BITS;

/**
 * A sparse array with a 32-bit number for each page: 0 until set. A leaf of 4,096 pages (16 MiB of
 * guest memory, 16 KiB itself) is allocated at the first value other than 0, so an empty 64 GiB
 * block costs 32 KiB, and a stream with pages far apart four times the size of those pages.
 */
export class PageTable {
  readonly pages: number;
  readonly #leaves: (Int32Array | undefined)[];
  #leafBytes = 0;

  constructor(pages: number) {
    this.pages = pages;
    this.#leaves = new Array(Math.ceil(pages / LEAF_PAGES));
  }

  /** Bytes of its leaves, which are never given back. */
  get leafBytes(): number {
    return this.#leafBytes;
  }

  get(page: number): number {
    const leaf = this.#leaves[page >>> LEAF_BITS];
    return leaf === undefined ? 0 : leaf[page & (LEAF_PAGES - 1)];
  }

  set(page: number, value: number): void {
    let leaf = this.#leaves[page >>> LEAF_BITS];
    if (leaf === undefined) {
      if (value === 0) return;
      leaf = this.#leaves[page >>> LEAF_BITS] = new Int32Array(LEAF_PAGES);
      this.#leafBytes += leaf.byteLength;
    }
    leaf[page & (LEAF_PAGES - 1)] = value;
  }

  /** Calls back for every page whose number is not 0, in order. */
  forEach(visit: (page: number, value: number) => void): void {
    for (let top = 0; top < this.#leaves.length; top++) {
      const leaf = this.#leaves[top];
      if (leaf === undefined) continue;
      for (let i = 0; i < LEAF_PAGES; i++) {
        if (leaf[i] !== 0) visit(top * LEAF_PAGES + i, leaf[i]);
      }
    }
  }

  /** The first page from `from` on whose number is not 0, or `pages`. */
  next(from: number): number {
    let page = from;
    while (page < this.pages) {
      const leaf = this.#leaves[page >>> LEAF_BITS];
      if (leaf === undefined) {
        page = ((page >>> LEAF_BITS) + 1) * LEAF_PAGES;
        continue;
      }
      let i = page & (LEAF_PAGES - 1);
      while (i < LEAF_PAGES && leaf[i] === 0) i++;
      if (i < LEAF_PAGES) return (page >>> LEAF_BITS) * LEAF_PAGES + i;
      page = ((page >>> LEAF_BITS) + 1) * LEAF_PAGES;
    }
    return this.pages;
  }
}
