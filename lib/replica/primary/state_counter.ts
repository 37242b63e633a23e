import type { RamRecord } from "../../qemu/ram_record.ts";

/**
 * Counts the bytes of a stream that are not RAM records: the devices' state, and the framing around
 * it.
 *
 * It subtracts the records: only they have a known length in every kind of stream.
 */
export class StateCounter {
  #beginOffset = 0;
  #recordBytes = 0;

  /** A transaction's first byte is at `offset`. */
  begin(offset: number): void {
    this.#beginOffset = offset;
    this.#recordBytes = 0;
  }

  /** A RAM record of the transaction. */
  record(record: RamRecord): void {
    this.#recordBytes += record.endOffset - record.offset;
  }

  /** The transaction ends at `endOffset`. @returns Its bytes that are not RAM records. */
  end(endOffset: number): number {
    return endOffset - this.#beginOffset - this.#recordBytes;
  }
}
