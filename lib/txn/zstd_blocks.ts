/** The largest window, in bytes. */
const MAX_WINDOW_BYTES = 2 ** 26;
/** `u32`, little-endian, that a zstd frame begins with. */
const ZSTD_MAGIC = 0xfd2fb528;
/** `u32` magic, `u8` descriptor, `u8` window. */
const FRAME_HEADER_BYTES = 6;
/** Bits of the descriptor that say that the content's size is known, or what dictionary it needs. */
const SIZE_OR_DICTIONARY = 0xe3;
const RESERVED = 0x08;
const BLOCK_HEADER_BYTES = 3;
const RLE_BLOCK = 1;
const RESERVED_BLOCK = 3;

/**
 * Walks over the blocks of a zstd frame that never ends, and comes in parts of whole blocks. A
 * decompressor does not tell where a frame ends, and begins another one behind it.
 *
 * @see RFC 8878, 3.1.1
 */
export class ZstdBlocks {
  #hasBegun = false;

  /**
   * Walks over the next part, `bytes[at, end)`.
   *
   * @returns What is wrong with it, in words; undefined if nothing is.
   */
  walk(bytes: Uint8Array, at: number, end: number): string | undefined {
    if (!this.#hasBegun) {
      const fault = faultOfHeader(bytes, at, end);
      if (fault !== undefined) return fault;
      this.#hasBegun = true;
      at += FRAME_HEADER_BYTES;
    }
    while (at < end) {
      if (end - at < BLOCK_HEADER_BYTES) return "is cut inside a block";
      const header = bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16;
      if ((header & 1) !== 0) return "ends, though more is to follow";
      const type = header >> 1 & 3;
      if (type === RESERVED_BLOCK) return "is damaged: a block of no type";
      at += BLOCK_HEADER_BYTES + (type === RLE_BLOCK ? 1 : header >> 3);
      if (at > end) return "is cut inside a block";
    }
    return undefined;
  }
}

function faultOfHeader(bytes: Uint8Array, at: number, end: number): string | undefined {
  if (end - at < FRAME_HEADER_BYTES) return "is cut inside its header";
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, FRAME_HEADER_BYTES);
  if (view.getUint32(0, true) !== ZSTD_MAGIC) return "is none";
  const descriptor = view.getUint8(4);
  if ((descriptor & RESERVED) !== 0) return "is damaged: a reserved bit is set";
  if ((descriptor & SIZE_OR_DICTIONARY) !== 0) return "has a size or a dictionary";
  const window = view.getUint8(5);
  const base = 2 ** (10 + (window >> 3));
  const windowBytes = base + base / 8 * (window & 7);
  return windowBytes > MAX_WINDOW_BYTES ? `has a window of ${windowBytes} bytes` : undefined;
}
