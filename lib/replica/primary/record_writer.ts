import { RAM_SAVE_FLAG } from "../../qemu/wire.ts";

/** How many bytes of stream are passed on together. */
const CHUNK_BYTES = 64 * 1024;
/** The longest header: `u64`, `u8`, a name; and XBZRLE's `u8` encoding, `u16` length. */
const MAX_HEADER_BYTES = 8 + 1 + 255 + 3;
const XBZRLE_ENCODING = 1;

/** Joins pieces of a migration stream and XBZRLE records of its own into chunks. */
export class RecordWriter {
  readonly #take: (chunk: Uint8Array) => void;
  readonly #bytes = new Uint8Array(CHUNK_BYTES);
  readonly #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** @param take Gets each chunk, and owns it. */
  constructor(take: (chunk: Uint8Array) => void) {
    this.#take = take;
  }

  /** Copies a piece, of a chunk's length at the most. */
  copy(bytes: Uint8Array): void {
    if (this.#length + bytes.length > CHUNK_BYTES) this.flush();
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /**
   * Writes a record: `u64 offset | flags`, the block's name, `u8 1, u16 length`, the difference.
   *
   * @param name Undefined if the record continues the block of the one before.
   */
  xbzrle(
    name: string | undefined,
    offset: number,
    difference: Uint8Array,
    lengthBytes: number,
  ): void {
    if (this.#length + MAX_HEADER_BYTES + lengthBytes > CHUNK_BYTES) this.flush();
    const bytes = this.#bytes;
    const flags = RAM_SAVE_FLAG.XBZRLE | (name === undefined ? RAM_SAVE_FLAG.CONTINUE : 0);
    let at = this.#length;
    this.#view.setUint32(at, Math.floor(offset / 0x1_0000_0000));
    this.#view.setUint32(at + 4, (offset % 0x1_0000_0000) | flags);
    at += 8;
    if (name !== undefined) {
      bytes[at++] = name.length;
      for (let i = 0; i < name.length; i++) bytes[at++] = name.charCodeAt(i);
    }
    bytes[at] = XBZRLE_ENCODING;
    this.#view.setUint16(at + 1, lengthBytes);
    at += 3;
    // Most are short: making a view would cost more than the loop.
    if (lengthBytes > 128) bytes.set(difference.subarray(0, lengthBytes), at);
    else for (let i = 0; i < lengthBytes; i++) bytes[at + i] = difference[i];
    this.#length = at + lengthBytes;
  }

  /** Passes on what there is. */
  flush(): void {
    if (this.#length === 0) return;
    const chunk = this.#bytes.slice(0, this.#length);
    this.#length = 0;
    this.#take(chunk);
  }

  /** Drops what was not passed on. */
  drop(): void {
    this.#length = 0;
  }
}
