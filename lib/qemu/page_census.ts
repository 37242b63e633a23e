import type { RamBlock } from "./wire.ts";

const LEAF_BITS = 15;
const LEAF_PAGES = 2 ** LEAF_BITS;

/** How a page was sent: whole, as zero, filled with another byte, or as XBZRLE difference. */
export type PageForm = "pages" | "zeroPages" | "fillPages" | "xbzrlePages";

/** How many pages were sent in which form. */
export type PageTally = { -readonly [form in PageForm]: number };

/** An empty tally. */
export function emptyTally(): PageTally {
  return { pages: 0, zeroPages: 0, fillPages: 0, xbzrlePages: 0 };
}

/** All pages of a tally, in whatever form. */
export function pagesSent(tally: PageTally): number {
  return tally.pages + tally.zeroPages + tally.fillPages + tally.xbzrlePages;
}

/** The pages sent of a RAM block. */
export interface BlockCensus extends Readonly<PageTally> {
  readonly name: string;
  readonly lengthBytes: number;
  /** How many different pages were sent. */
  readonly distinctPages: number;
  /** How many pages had been sent before in this stream: all sent, less the distinct ones. */
  readonly duplicatePages: number;
}

/**
 * Counts a stream's pages by block, and separates pages that come again from new ones.
 *
 * Keeps one bit a page, in leaves of 4 KiB for 128 MiB of guest memory, which are allocated with
 * their first page: RAM that a stream only announces costs nothing.
 */
export class PageCensus {
  readonly #blocks: readonly RamBlock[];
  readonly #pageBytes: number;
  readonly #tallies: PageTally[];
  readonly #distinct: number[];
  readonly #seen: (Uint8Array | undefined)[][];

  constructor(blocks: readonly RamBlock[], pageBytes: number) {
    this.#blocks = blocks;
    this.#pageBytes = pageBytes;
    this.#tallies = blocks.map(emptyTally);
    this.#distinct = blocks.map(() => 0);
    this.#seen = blocks.map(() => []);
  }

  /** Counts the page at `offset` (bytes) of a block. */
  count(block: number, offset: number, form: PageForm): void {
    this.#tallies[block][form]++;
    const page = offset / this.#pageBytes;
    const top = Math.floor(page / LEAF_PAGES);
    const bit = page % LEAF_PAGES;
    const leaf = this.#seen[block][top] ??= new Uint8Array(LEAF_PAGES / 8);
    const mask = 1 << (bit & 7);
    if ((leaf[bit >>> 3] & mask) !== 0) return;
    leaf[bit >>> 3] |= mask;
    this.#distinct[block]++;
  }

  /** The counts so far, in the order of the stream's list of blocks. */
  blocks(): BlockCensus[] {
    return this.#blocks.map(({ name, lengthBytes }, index) => {
      const tally = this.#tallies[index];
      const distinctPages = this.#distinct[index];
      const duplicatePages = pagesSent(tally) - distinctPages;
      return { name, lengthBytes, ...tally, distinctPages, duplicatePages };
    });
  }
}
