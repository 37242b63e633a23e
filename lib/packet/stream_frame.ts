import { Carry } from "../bytes/carry.ts";
import { WireError } from "../errors.ts";

/** Bytes in front of every frame: its length. */
export const FRAME_HEADER_BYTES = 4;
/** The shortest frame there is: two addresses and a type. QEMU does not pad to Ethernet's 60. */
export const MIN_FRAME_BYTES = 14;
/** The longest: 64 KiB of IP packet behind an Ethernet header with two VLAN tags. */
export const MAX_FRAME_BYTES = 65535 + 14 + 8;

/**
 * Writes the header of one frame; the frame itself follows it on the wire.
 *
 * Wire shape, big-endian: `u32` length of the frame, then the frame.
 *
 * @see QEMU net/stream_data.c, net_stream_data_receive()
 */
export function encodeFrameHeader(into: Uint8Array, at: number, frameBytes: number): void {
  into[at] = frameBytes >>> 24;
  into[at + 1] = frameBytes >>> 16;
  into[at + 2] = frameBytes >>> 8;
  into[at + 3] = frameBytes;
}

/**
 * Takes Ethernet frames out of what `-netdev stream` sends, cut anywhere.
 *
 * A frame's length is checked before memory is allocated for it, so less than the longest frame is
 * carried over.
 */
export class StreamFrameDecoder {
  readonly #carry = new Carry();
  readonly #maxFrameBytes: number;
  #onFrame: (frame: Uint8Array) => void = () => {};
  /** Bytes of whole frames, headers included. */
  #taken = 0;
  #frames = 0;

  /** @param maxFrameBytes The longest frame that is not a fault. */
  constructor(maxFrameBytes = MAX_FRAME_BYTES) {
    this.#maxFrameBytes = maxFrameBytes;
  }

  /** Whole frames seen so far. */
  get frames(): number {
    return this.#frames;
  }

  /** Bytes that wait for the rest of their frame. */
  get pendingBytes(): number {
    return this.#carry.pendingBytes;
  }

  /**
   * Feeds `bytes[start, end)`.
   *
   * @param onFrame Gets each frame without its header: a view that is only valid during the call.
   * @throws {WireError} `bad-length` or `too-large`, with the offset of the wrong length. The rest
   *   of the stream cannot be decoded.
   */
  receive(
    bytes: Uint8Array,
    start: number,
    end: number,
    onFrame: (frame: Uint8Array) => void,
  ): void {
    this.#onFrame = onFrame;
    this.#carry.feed(bytes, start, end, this.#take);
  }

  /**
   * The stream has ended.
   *
   * @throws {WireError} `truncated` if it ended inside a frame.
   */
  end(): void {
    if (this.#carry.pendingBytes === 0) return;
    throw new WireError(
      "packet",
      this.#taken,
      "truncated",
      `the stream ends ${this.#carry.pendingBytes} bytes into a frame`,
    );
  }

  readonly #take = (bytes: Uint8Array, start: number, end: number): number => {
    let at = start;
    while (end - at >= FRAME_HEADER_BYTES) {
      const length =
        (bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]) >>>
        0;
      if (length < MIN_FRAME_BYTES || length > this.#maxFrameBytes) this.#refuse(length);
      const next = at + FRAME_HEADER_BYTES + length;
      if (next > end) break;
      this.#taken += FRAME_HEADER_BYTES + length;
      this.#frames++;
      this.#onFrame(bytes.subarray(at + FRAME_HEADER_BYTES, next));
      at = next;
    }
    return at;
  };

  #refuse(length: number): never {
    const short = length < MIN_FRAME_BYTES;
    throw new WireError(
      "packet",
      this.#taken,
      short ? "bad-length" : "too-large",
      `a frame of ${length} bytes, where ${
        short ? `at least ${MIN_FRAME_BYTES}` : `at most ${this.#maxFrameBytes}`
      } are possible`,
      {
        hint: "the other side must speak `-netdev stream`: u32 length, then the Ethernet frame, " +
          "without a vnet header",
      },
    );
  }
}
