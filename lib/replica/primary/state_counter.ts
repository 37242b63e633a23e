import type { RamBlock } from "../../qemu/wire.ts";

/**
 * Counts the bytes of a stream that are no RAM record: the devices' state, and what frames it.
 *
 * Records are counted rather than device state: only they have a length each in every kind of
 * stream.
 */
export class StateCounter {
  #beginOffset = 0;
  #recordBytes = 0;
  #nameBytes: readonly number[] = [];

  /** The stream's RAM blocks, in the order of their numbers. */
  blocks(blocks: readonly RamBlock[]): void {
    this.#nameBytes = blocks.map(({ name }) => name.length);
  }

  /** A transaction's first byte stands at `offset`. */
  begin(offset: number): void {
    this.#beginOffset = offset;
    this.#recordBytes = 0;
  }

  /**
   * A RAM record: `u64 offset | flags`, with `named` also `u8 n, n bytes of block name`, and
   * `bodyBytes`.
   */
  record(block: number, named: boolean, bodyBytes: number): void {
    this.#recordBytes += bodyBytes + (named ? 8 + 1 + this.#nameBytes[block] : 8);
  }

  /** The transaction ends at `endOffset`. @returns Its bytes that are no RAM record. */
  end(endOffset: number): number {
    return endOffset - this.#beginOffset - this.#recordBytes;
  }
}
