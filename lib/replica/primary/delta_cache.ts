import { StateError } from "../../errors.ts";
import { encodeXbzrle, MAX_XBZRLE_PAGE_BYTES } from "../../qemu/xbzrle.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import { PageTable } from "../pages/page_table.ts";

/** Values of the tables: nothing is known of the page, it is one of zeros, or slot n + FIRST_SLOT. */
const ZEROS = 1;
const FIRST_SLOT = 2;

const SLAB_BYTES = 2 * 2 ** 20;

/** What {@link DeltaCache.difference} says where it wrote none. */
export const DIFFERENCE = {
  /** It does not pay, or the receiver's page is not known: the page has to be sent whole. */
  whole: -1,
} as const;

/**
 * What the receiver holds of the pages sent last: what it has staged, or else committed, once it
 * has read all that was sent to it in this session.
 *
 * A page of memory is kept for each, up to a limit; beyond it pages give way to new ones, those
 * first that have not been sent again since the last round (the clock algorithm): a file written
 * once goes by without driving out what the guest works with. Pages of zeros take none.
 *
 * Whoever uses it tells it of every page that is sent, and {@link clear}s it when a transaction is
 * cancelled: what the receiver then has is not known.
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
  /** Whose page a slot holds; block -1 where nobody's. */
  #ownerBlock = new Int32Array(0);
  #ownerPage = new Uint32Array(0);
  #used = new Uint8Array(0);
  #hand = 0;
  #free: number[] = [];

  /** Pages sent whole, for want of the receiver's copy. */
  misses = 0;
  hits = 0;
  evictions = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** Memory that is in use for pages. */
  get memoryBytes(): number {
    return (this.#slots - this.#free.length) * this.#pageBytes;
  }
  get limitBytes(): number {
    return this.#limitBytes;
  }
  /** True once it was told of a machine. */
  get begun(): boolean {
    return this.#tables.length > 0;
  }

  /** A machine with these blocks is sent from here on, of which the receiver has nothing. */
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

  /** What the receiver has of the page is not known any more. */
  forget(block: number, page: number): void {
    this.#put(block, page, 0);
  }

  /** The page is sent as one of zeros. @returns Whether the receiver has it so already. */
  setZeros(block: number, page: number): boolean {
    if (this.#tables[block].get(page) === ZEROS) return true;
    this.#put(block, page, ZEROS);
    return false;
  }

  /**
   * Tells how the page at `bytes[at]` differs from what the receiver has, and keeps it: it must be
   * sent, as a difference or whole.
   *
   * @param out Takes the difference as XBZRLE: at most `limit` bytes.
   * @returns Its length; 0 if the receiver has the page as it is; or {@link DIFFERENCE}.
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

  /** Finds a slot for a page that has none, at another's cost if need be; -1 where none may be had. */
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
