import type { RamBlock } from "../../qemu/wire.ts";
import { PageTable } from "./page_table.ts";
import type { SlotPool } from "./slot_pool.ts";

/**
 * The storage of the committed pages of a VM's RAM. A page of zeros takes no room.
 *
 * A store holds one image. `RamImage` stages a transaction in slots of the pool and moves it here
 * when it commits: {@link reserve} for all pages first, which may fail and changes no content, then
 * {@link put} and {@link clear}, which cannot.
 */
export interface PageStore {
  /**
   * Whether pages of a first transaction are put here as they come: there is no committed state yet
   * that they could harm, and storing all of them a second time would double the RAM.
   */
  readonly writesThrough: boolean;
  /** Bytes of pages held outside of the slot pool. */
  readonly heldBytes: number;
  /** The page, or `undefined` for a page of zeros. The view shares the store's memory. */
  page(block: number, page: number): Uint8Array | undefined;
  /** The first page from `from` on that is not zeros, or the block's page count. */
  nextPage(block: number, from: number): number;
  /**
   * Makes room for pages before {@link put}, if that could fail.
   *
   * @param pages In ascending order.
   * @throws {TransportError} if there is no room; the content is unchanged then.
   */
  reserve?(block: number, pages: Uint32Array): void;
  /** Gives back the room that was reserved and not used. */
  unreserve?(): void;
  /** Makes a slot's content the page's; the store owns the slot from then on. */
  put(block: number, page: number, slot: number): void;
  /**
   * Writes a page from any memory, whether there is room or not. Only if {@link writesThrough}.
   *
   * @throws {TransportError} if there is no room.
   */
  write(block: number, page: number, bytes: Uint8Array): void;
  /** Makes a page zeros, and gives its room back. */
  clear(block: number, page: number): void;
  /** Releases everything; the store must not be used afterwards. */
  release(): void;
}

/** A VM's state besides its RAM, as bytes of its stream. */
export interface MachineRecord {
  /** The section as received; empty if there was none. */
  readonly configuration: Uint8Array;
  readonly device: Uint8Array;
  /** The JSON that came with the full state; empty if none came. */
  readonly vmdescription: Uint8Array;
}

/** Opens stores for a replica, and may keep the committed state beyond this process. */
export interface ReplicaStore {
  /** The same for all its stores, see {@link PageStore.writesThrough}. */
  readonly writesThrough: boolean;
  /**
   * Opens a store for the RAM of a full state. The committed state stays where it is until the new
   * one is committed.
   *
   * @throws {TransportError} if there is not enough room for all of it.
   */
  create(blocks: readonly RamBlock[], pool: SlotPool): PageStore;
  /**
   * Called before a transaction's pages are moved, when the transaction cannot be refused any more.
   *
   * @throws {TransportError} if this cannot be noted; nothing has changed then.
   */
  begin(transaction: number, machine: MachineRecord, pages: PageStore): void;
  /** The transaction is completely applied. */
  end(): void;
}

/** Committed pages in slots of the pool: a commit moves numbers and copies nothing. */
export class MemoryPages implements PageStore {
  readonly writesThrough: boolean = false;
  readonly heldBytes = 0;
  readonly #pool: SlotPool;
  /** 0 is a page of zeros, n + 1 is slot n. */
  readonly #tables: readonly PageTable[];

  constructor(blocks: readonly RamBlock[], pool: SlotPool) {
    this.#pool = pool;
    this.#tables = blocks.map(({ lengthBytes }) => new PageTable(lengthBytes / pool.pageBytes));
  }

  page(block: number, page: number): Uint8Array | undefined {
    const value = this.#tables[block].get(page);
    return value === 0 ? undefined : this.#pool.page(value - 1);
  }

  nextPage(block: number, from: number): number {
    return this.#tables[block].next(from);
  }

  put(block: number, page: number, slot: number): void {
    const table = this.#tables[block];
    const old = table.get(page);
    if (old !== 0) this.#pool.release(old - 1);
    table.set(page, slot + 1);
  }

  write(block: number, page: number, bytes: Uint8Array): void {
    const slot = this.#pool.acquire();
    this.#pool.write(slot, bytes, 0);
    this.put(block, page, slot);
  }

  clear(block: number, page: number): void {
    const table = this.#tables[block];
    const old = table.get(page);
    if (old === 0) return;
    this.#pool.release(old - 1);
    table.set(page, 0);
  }

  release(): void {
    for (const table of this.#tables) {
      table.forEach((_page, value) => this.#pool.release(value - 1));
    }
  }
}

/** Keeps replicas in this process's memory, and so no longer than the process. */
export const MEMORY_STORE: ReplicaStore = {
  writesThrough: false,
  create: (blocks, pool) => new MemoryPages(blocks, pool),
  begin: () => {},
  end: () => {},
};
