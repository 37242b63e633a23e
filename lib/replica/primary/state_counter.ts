import type { RamRecord } from "../../qemu/ram_record.ts";

/**
 * Counts the bytes of a stream that are no RAM record: the devices' state, and what frames it.
 *
 * Records are counted rather than device state: only they have a length each in every kind of
 * stream.
 */
export class StateCounter {
  #beginOffset = 0;
  #recordBytes = 0;

  /** A transaction's first byte stands at `offset`. */
  begin(offset: number): void {
    this.#beginOffset = offset;
    this.#recordBytes = 0;
  }

  /** A RAM record of the transaction. */
  record(record: RamRecord): void {
    this.#recordBytes += record.endOffset - record.offset;
  }

  /** The transaction ends at `endOffset`. @returns Its bytes that are no RAM record. */
  end(endOffset: number): number {
    return endOffset - this.#beginOffset - this.#recordBytes;
  }
}
