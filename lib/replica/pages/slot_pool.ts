import { StateError, TransportError } from "../../errors.ts";

/** Allocates zeroed memory of this many bytes; the host may back it with huge pages. */
export type AllocateSlab = (bytes: number) => Uint8Array;

const SLAB_BYTES = 2 * 2 ** 20;

/**
 * Memory for pages, handed out a slot at a time and packed into slabs of 2 MiB.
 *
 * Pages of every RAM block and of every transaction share one pool, so that a commit moves slot
 * numbers and no bytes, and so that huge pages behind a slab are never half empty.
 */
export class SlotPool {
  readonly pageBytes: number;
  readonly #slotsPerSlab: number;
  readonly #slabShift: number;
  readonly #allocate: AllocateSlab;
  readonly #slabs: Uint8Array[] = [];
  #free: number[] = [];
  #fresh = 0;
  #live = 0;

  constructor(pageBytes: number, allocate: AllocateSlab = (bytes) => new Uint8Array(bytes)) {
    this.pageBytes = pageBytes;
    this.#slotsPerSlab = SLAB_BYTES / pageBytes;
    this.#slabShift = Math.log2(this.#slotsPerSlab);
    this.#allocate = allocate;
    if (!Number.isInteger(this.#slabShift)) throw new StateError(`pages of ${pageBytes} bytes`);
  }

  /** How many slots are in use. */
  get live(): number {
    return this.#live;
  }

  /**
   * Hands out a slot; its content is undefined.
   *
   * @throws {TransportError} if there is no memory; nothing has changed.
   */
  acquire(): number {
    const reused = this.#free.pop();
    if (reused === undefined && this.#fresh === this.#slabs.length * this.#slotsPerSlab) {
      this.#slabs.push(this.#newSlab());
    }
    this.#live++;
    return reused ?? this.#fresh++;
  }

  #newSlab(): Uint8Array {
    try {
      return this.#allocate(SLAB_BYTES);
    } catch (cause) {
      if (!(cause instanceof RangeError)) throw cause;
      const held = this.#slabs.length * SLAB_BYTES / 2 ** 20;
      throw new TransportError(
        "memory",
        "write",
        `no more for pages, which take ${held} MiB`,
        {
          party: "replica",
          hint: "give recv more memory, or a --ram-dir on a disk",
          cause,
        },
      );
    }
  }

  /** Takes a slot back. */
  release(slot: number): void {
    this.#live--;
    this.#free.push(slot);
  }

  /** The slab that holds a slot; the page is at {@link offsetOf}. */
  slabOf(slot: number): Uint8Array {
    return this.#slabs[slot >> this.#slabShift];
  }

  offsetOf(slot: number): number {
    return (slot & (this.#slotsPerSlab - 1)) * this.pageBytes;
  }

  /** Copies the page at `bytes[at]` into a slot. */
  write(slot: number, bytes: Uint8Array, at: number): void {
    this.slabOf(slot).set(bytes.subarray(at, at + this.pageBytes), this.offsetOf(slot));
  }

  /** A view of a slot's page; shares the slab's memory. */
  page(slot: number): Uint8Array {
    const offset = this.offsetOf(slot);
    return this.slabOf(slot).subarray(offset, offset + this.pageBytes);
  }
}
