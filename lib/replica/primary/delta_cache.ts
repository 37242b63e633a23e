import { StateError } from "../../errors.ts";
import { encodeXbzrle, MAX_XBZRLE_PAGE_BYTES } from "../../qemu/xbzrle.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import { PageTable } from "../pages/page_table.ts";

/**
 * Values of the tables: the receiver's page is not known, is zeros, or is in slot n (as n +
 * FIRST_SLOT).
 */
const ZEROS = 1;
const FIRST_SLOT = 2;

const SLAB_BYTES = 2 * 2 ** 20;

/** What {@link DeltaCache.difference} returns if it wrote no difference. */
export const DIFFERENCE = {
  /**
   * A difference does not pay, or the receiver's page is not known: the page has to be sent whole.
   */
  whole: -1,
} as const;

/**
 * The receiver's version of the pages sent last: the one staged there, or else committed, when it
 * has read everything that was sent in this session.
 *
 * Each takes a page of memory, up to a limit; beyond that, pages are replaced by new ones, first
 * those that have not been sent again since the last round (the clock algorithm): so a file that is
 * written once does not displace the guest's working set. Pages of zeros take no memory.
 *
 * The user reports every page that is sent, and calls {@link clear} when a transaction is
 * cancelled: the receiver's pages are not known then.
 */
export class DeltaCache {
  readonly #limitBytes: number;
  #pageBytes = 0;
  #tables: PageTable[] = [];
  readonly #slabs: Uint32Array[] = [];
  /** The same memory. */
  readonly #slabPairs: Float64Array[] = [];
  #slotsPerSlab = 0;
  #slabShift = 0;
  #slots = 0;
  #capacity = 0;
  /** The page in each slot; block -1 if the slot is free. */
  #ownerBlock = new Int32Array(0);
  #ownerPage = new Uint32Array(0);
  #used = new Uint8Array(0);
  #hand = 0;
  #free: number[] = [];

  /** How many pages were sent whole because the receiver's version was not known. */
  misses = 0;
  hits = 0;
  evictions = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** Bytes of memory in use for pages. */
  get memoryBytes(): number {
    return (this.#slots - this.#free.length) * this.#pageBytes;
  }
  get limitBytes(): number {
    return this.#limitBytes;
  }
  /** Whether the machine is known. */
  get begun(): boolean {
    return this.#tables.length > 0;
  }

  /** From here on a machine with these blocks is sent, of which the receiver has nothing. */
  begin(blocks: readonly RamBlock[], pageBytes: number): void {
    this.clear();
    if (pageBytes !== this.#pageBytes) {
      this.#pageBytes = pageBytes;
      this.#slabs.length = 0;
      this.#slabPairs.length = 0;
      this.#slots = 0;
      this.#free = [];
      this.#slotsPerSlab = Math.max(1, SLAB_BYTES / pageBytes);
      this.#slabShift = Math.log2(this.#slotsPerSlab);
      if (!Number.isInteger(this.#slabShift)) throw new StateError(`pages of ${pageBytes} bytes`);
      const fits = pageBytes <= MAX_XBZRLE_PAGE_BYTES;
      this.#capacity = fits ? Math.floor(this.#limitBytes / pageBytes) : 0;
      this.#grow(Math.min(this.#capacity, this.#slotsPerSlab));
    }
    this.#tables = blocks.map(({ lengthBytes }) => new PageTable(lengthBytes / pageBytes));
  }

  /** Forgets everything. */
  clear(): void {
    this.#tables = this.#tables.map(({ pages }) => new PageTable(pages));
    this.#free = [];
    for (let slot = this.#slots - 1; slot >= 0; slot--) this.#free.push(slot);
    this.#ownerBlock.fill(-1);
  }

  /** The receiver's version of the page is not known any more. */
  forget(block: number, page: number): void {
    this.#put(block, page, 0);
  }

  /** The page is sent as zeros. @returns Whether it is zeros at the receiver already. */
  setZeros(block: number, page: number): boolean {
    if (this.#tables[block].get(page) === ZEROS) return true;
    this.#put(block, page, ZEROS);
    return false;
  }

  /**
   * Computes how the page at `bytes[at]` differs from the receiver's version, and keeps the page:
   * it must be sent, as a difference or whole.
   *
   * @param out Takes the difference as XBZRLE: at most `limit` bytes.
   * @returns The difference's length; 0 if the receiver's page is equal; or {@link DIFFERENCE}.
   */
  difference(
    block: number,
    page: number,
    bytes: DataView,
    at: number,
    out: Uint8Array,
    limit: number,
  ): number {
    const value = this.#tables[block].get(page);
    if (value === 0) {
      this.misses++;
      this.keep(block, page, bytes, at);
      return DIFFERENCE.whole;
    }
    let slot = value - FIRST_SLOT;
    if (value === ZEROS) {
      slot = this.#acquire(block, page);
      if (slot < 0) {
        this.forget(block, page);
        return DIFFERENCE.whole;
      }
      const from = this.#wordOf(slot);
      this.#slabs[slot >>> this.#slabShift].fill(0, from, from + (this.#pageBytes >>> 2));
    }
    this.#used[slot] = 1;
    this.hits++;
    const slab = slot >>> this.#slabShift;
    const word = this.#wordOf(slot);
    return encodeXbzrle(
      bytes,
      at,
      this.#slabs[slab],
      this.#slabPairs[slab],
      word,
      this.#pageBytes,
      out,
      limit,
    );
  }

  /** Keeps a page that is sent whole. */
  keep(block: number, page: number, bytes: DataView, at: number): void {
    const value = this.#tables[block].get(page);
    const slot = value >= FIRST_SLOT ? value - FIRST_SLOT : this.#acquire(block, page);
    if (slot < 0) return this.forget(block, page);
    const slab = this.#slabs[slot >>> this.#slabShift];
    const source = new Uint8Array(bytes.buffer, bytes.byteOffset + at, this.#pageBytes);
    new Uint8Array(slab.buffer, this.#wordOf(slot) * 4, this.#pageBytes).set(source);
  }

  #put(block: number, page: number, value: number): void {
    const before = this.#tables[block].get(page);
    if (before >= FIRST_SLOT) {
      this.#ownerBlock[before - FIRST_SLOT] = -1;
      this.#free.push(before - FIRST_SLOT);
    }
    if (before !== value) this.#tables[block].set(page, value);
  }

  /**
   * Finds a slot for a page that has none, by replacing another page if need be; -1 if there is
   * none.
   */
  #acquire(block: number, page: number): number {
    if (this.#capacity === 0) return -1;
    const slot = this.#free.pop() ?? this.#freshSlot() ?? this.#evict();
    this.#ownerBlock[slot] = block;
    this.#ownerPage[slot] = page;
    this.#used[slot] = 0;
    this.#tables[block].set(page, slot + FIRST_SLOT);
    return slot;
  }

  #freshSlot(): number | undefined {
    if (this.#slots === this.#capacity) return undefined;
    const slot = this.#slots++;
    if (slot >>> this.#slabShift === this.#slabs.length) {
      const slab = new Uint32Array(this.#slotsPerSlab * this.#pageBytes / 4);
      this.#slabs.push(slab);
      this.#slabPairs.push(new Float64Array(slab.buffer));
    }
    if (slot >= this.#used.length) this.#grow(Math.min(this.#capacity, 2 * this.#used.length));
    return slot;
  }

  #evict(): number {
    for (;;) {
      const slot = this.#hand;
      this.#hand = slot + 1 === this.#slots ? 0 : slot + 1;
      if (this.#used[slot] !== 0) {
        this.#used[slot] = 0;
        continue;
      }
      this.evictions++;
      this.#tables[this.#ownerBlock[slot]].set(this.#ownerPage[slot], 0);
      return slot;
    }
  }

  #wordOf(slot: number): number {
    return (slot & (this.#slotsPerSlab - 1)) * (this.#pageBytes >>> 2);
  }

  #grow(slots: number): void {
    const grown = [new Int32Array(slots).fill(-1), new Uint32Array(slots), new Uint8Array(slots)];
    grown[0].set(this.#ownerBlock.subarray(0, slots));
    grown[1].set(this.#ownerPage.subarray(0, slots));
    grown[2].set(this.#used.subarray(0, slots));
    [this.#ownerBlock, this.#ownerPage, this.#used] = grown as [
      Int32Array<ArrayBuffer>,
      Uint32Array<ArrayBuffer>,
      Uint8Array<ArrayBuffer>,
    ];
  }
}
