/**
 * zstd with memory: one endless stream in each direction, flushed where the caller says.
 *
 * A checkpoint's device state is nearly the last one's, and so is much else: what a stream has
 * already carried costs a few bytes the second time. `zstdCompressSync` begins anew at each call,
 * and the stream classes of `node:zlib` answer later, through the event loop. What they are made of
 * answers at once: `_handle.writeSync()`, which npm's own minizlib builds on in the same way.
 *
 * @see RFC 8878
 */
import { constants, createZstdCompress, createZstdDecompress } from "node:zlib";
import { StateError } from "../errors.ts";

/** log2 of the window in bytes: how far back a stream may refer, and what its two ends remember. */
export const WINDOW_LOG = 26;

/** A stream's native part. `writeSync` sets the owner's `_writeState` to `[room left, bytes left]`. */
interface Handle {
  writeSync(
    flush: number,
    input: Uint8Array,
    inputAt: number,
    inputBytes: number,
    output: Uint8Array,
    outputAt: number,
    outputBytes: number,
  ): void;
  close(): void;
}

interface Owner {
  readonly _handle: Handle;
  readonly _writeState: Uint32Array;
}

/** Bytes that compressing so many may need, at the most. */
export function compressBound(lengthBytes: number): number {
  return lengthBytes + (lengthBytes >>> 7) + 1024;
}

/** The compressing end of a stream. */
export class ZstdCompressor {
  readonly #owner: Owner;

  /** @param level zstd's own scale: 1 is fast, negative is faster. */
  constructor(level: number) {
    this.#owner = createZstdCompress({
      params: {
        [constants.ZSTD_c_compressionLevel]: level,
        [constants.ZSTD_c_windowLog]: WINDOW_LOG,
        [constants.ZSTD_c_hashLog]: HASH_LOG,
        [constants.ZSTD_c_minMatch]: MIN_MATCH,
      },
    }) as unknown as Owner;
  }

  /**
   * Compresses `input[0, lengthBytes)` so that all of it can be had from what is written.
   *
   * @param output Has room for {@link compressBound} from `at` on.
   * @returns One past the last byte written.
   */
  compress(input: Uint8Array, lengthBytes: number, output: Uint8Array, at: number): number {
    const room = output.length - at;
    const { _handle, _writeState } = this.#owner;
    _handle.writeSync(constants.ZSTD_e_flush, input, 0, lengthBytes, output, at, room);
    if (_writeState[0] === 0 || _writeState[1] !== 0) {
      throw new StateError(`zstd did not fit ${lengthBytes} bytes into ${room}`);
    }
    return output.length - _writeState[0];
  }
}

/**
 * The compressor's memory of what it has seen: 2^18 places, 1 MiB. A guest writes the same content
 * to other pages, and to its disk, and this finds most of it: of recorded file I/O, pages already
 * sent as differences, 8 % are left (with 2^16 places 55 %, 2^20 3 %), and 7 % of small requests
 * (8 %, 6 %). It takes 0.5 and 1.4 ns of CPU time for a byte. Long-distance matching leaves 1 % of
 * the file I/O, but hashes every byte for it: 1.5 and 3.5 ns, which a link of 1 Gb/s does not win
 * back. With a window of 16 MiB 56 % of the file I/O are left. Short matches cost time that they do
 * not save.
 */
const HASH_LOG = 18;
const MIN_MATCH = 6;

/** The decompressing end of a stream. */
export class ZstdDecompressor {
  readonly #owner: Owner = createZstdDecompress({
    params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG },
  }) as unknown as Owner;
  /** A stream that went wrong once cannot go on. */
  #failed = false;

  /**
   * Decompresses `input[at, end)`, which must yield exactly `lengthBytes`. Nothing but `output` is
   * ever filled, whatever the input claims.
   *
   * @param output Has room for one byte more than that, by which a surplus shows.
   * @returns False if the input is no zstd, needs a larger window, or yields another length.
   */
  decompress(
    input: Uint8Array,
    at: number,
    end: number,
    output: Uint8Array,
    lengthBytes: number,
  ): boolean {
    if (this.#failed) return false;
    const { _handle, _writeState } = this.#owner;
    const mode = constants.ZSTD_e_continue;
    try {
      _handle.writeSync(mode, input, at, end - at, output, 0, lengthBytes + 1);
      this.#failed = _writeState[0] !== 1 || _writeState[1] !== 0;
    } catch {
      this.#failed = true;
    }
    return !this.#failed;
  }
}

/** Whether this runtime's zlib has what this file is made of. */
export const HAS_ZSTD = typeof createZstdCompress === "function" && (() => {
  const compressor = createZstdCompress() as unknown as Partial<Owner>;
  const has = typeof compressor._handle?.writeSync === "function" &&
    compressor._writeState instanceof Uint32Array;
  compressor._handle?.close();
  return has;
})();
