import { addressOf } from "../system/channel.ts";

/** The most bytes in a TLS record; RFC 8446, section 5.1. */
export const RECORD_BYTES = 16 * 1024;

/**
 * Pieces that wait to be encrypted, cut into records. A full record from a single piece is not
 * copied; smaller pieces are gathered, so that no record is small while more data waits.
 */
export class RecordQueue {
  #pieces: Uint8Array[] = [];
  #first = 0;
  #offset = 0;
  #queued = 0;
  #written = 0;
  readonly #gathered = new Uint8Array(RECORD_BYTES);
  readonly #gatheredAddress = addressOf(this.#gathered.buffer);
  /** The memory of the last large piece: pieces of a segment come one after another. */
  #memory: ArrayBufferLike = this.#gathered.buffer;
  #memoryAddress = this.#gatheredAddress;
  /** The next record to be written; it does not change until it is written. */
  #address = 0;
  #length = 0;

  /** Bytes ever pushed. */
  get queued(): number {
    return this.#queued;
  }
  /** Bytes ever written. */
  get written(): number {
    return this.#written;
  }
  get pendingBytes(): number {
    return this.#queued - this.#written;
  }

  push(pieces: readonly Uint8Array[]): void {
    for (const piece of pieces) {
      if (piece.length === 0) continue;
      this.#pieces.push(piece);
      this.#queued += piece.length;
    }
  }

  /**
   * Address of the next record's bytes; their number is {@link nextLength}. Only to be called while
   * bytes wait.
   */
  nextAddress(): number {
    if (this.#length === 0) this.#prepare();
    return this.#address;
  }
  /** Number of bytes in the next record: 1 to {@link RECORD_BYTES}. */
  get nextLength(): number {
    return this.#length;
  }

  /** Notes that the record has been written. */
  advance(): void {
    let left = this.#length;
    this.#length = 0;
    this.#written += left;
    while (left > 0) {
      const rest = this.#pieces[this.#first].length - this.#offset;
      if (left < rest) {
        this.#offset += left;
        return;
      }
      left -= rest;
      this.#first++;
      this.#offset = 0;
    }
    if (this.#first === this.#pieces.length || this.#first > 4096) {
      this.#pieces = this.#pieces.slice(this.#first);
      this.#first = 0;
    }
  }

  /** Takes out all waiting bytes, for another writer. They count as never pushed. */
  takeRest(): Uint8Array[] {
    const rest = this.#pieces.slice(this.#first);
    if (this.#offset > 0) rest[0] = rest[0].subarray(this.#offset);
    this.#queued = this.#written;
    this.#pieces = [];
    this.#first = this.#offset = this.#length = 0;
    return rest;
  }

  #prepare(): void {
    const piece = this.#pieces[this.#first];
    const rest = piece.length - this.#offset;
    if (rest >= RECORD_BYTES || rest === this.pendingBytes) {
      if (piece.buffer !== this.#memory) {
        this.#memory = piece.buffer;
        this.#memoryAddress = addressOf(piece.buffer);
      }
      this.#address = this.#memoryAddress + piece.byteOffset + this.#offset;
      this.#length = Math.min(rest, RECORD_BYTES);
      return;
    }
    let count = 0;
    for (let i = this.#first, from = this.#offset; i < this.#pieces.length; i++, from = 0) {
      const taken = this.#pieces[i].subarray(from, from + RECORD_BYTES - count);
      this.#gathered.set(taken, count);
      count += taken.length;
      if (count === RECORD_BYTES) break;
    }
    this.#address = this.#gatheredAddress;
    this.#length = count;
  }
}
