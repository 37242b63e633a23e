/**
 * PACKED: frames of a transaction, zstd around them.
 *
 * Whole CONTINUE and EVENT frames, headers included, are joined and compressed; the other end
 * takes them as if they had come one by one. What a transaction says, and what its checksum is
 * of, are thus the same with packing and without. Payload: `u32 bytes of the frames, zstd`; the
 * zstd of all PACKED frames of a connection is one stream.
 */
import type { FrameVisitor } from "./frame_visitor.ts";
import { decodeHeader, encodeHeader } from "./frame_header.ts";
import { frameName } from "./frame_rules.ts";
import { HEADER_BYTES, MAX_PACKED_BYTES, TXN } from "./wire.ts";
import { refuse } from "./wire_fault.ts";
import { ZstdBlocks } from "./zstd_blocks.ts";
import { compressBound, ZstdCompressor, ZstdDecompressor } from "./zstd_context.ts";

const LENGTH_BYTES = 4;
/** Frames are packed in batches of this size at the most: input and output stay in the CPU's cache. */
const BATCH_BYTES = 256 * 1024;
/** The longest payload of a frame that is packed. */
export const MAX_BATCH_PAYLOAD_BYTES = BATCH_BYTES - HEADER_BYTES;
const LEVEL = 1;

/** What packing has done so far. */
export interface PackingCounters {
  /** Bytes of frames that were packed. */
  fromBytes: number;
  /** Bytes that they were packed into, headers included. */
  toBytes: number;
  /** Time that it took. */
  packingMs: number;
}

/** Packs what a sender says. */
export class FramePacker {
  readonly #clock: () => number;
  readonly #zstd = new ZstdCompressor(LEVEL);
  readonly #batch = new Uint8Array(BATCH_BYTES);
  readonly #packed = new Uint8Array(HEADER_BYTES + LENGTH_BYTES + compressBound(BATCH_BYTES));
  #batchBytes = 0;
  readonly counters: PackingCounters = { fromBytes: 0, toBytes: 0, packingMs: 0 };

  constructor(clock: () => number) {
    this.#clock = clock;
  }

  /**
   * Packs frames as far as they may be.
   *
   * @param pieces Whole frames: a header in one piece, its payload in any number of them.
   * @returns Pieces of whole frames. They are new memory where frames were packed, else those given.
   */
  pack(pieces: readonly Uint8Array[]): Uint8Array[] {
    const begunAt = this.#clock();
    const out: Uint8Array[] = [];
    for (let i = 0; i < pieces.length;) {
      const header = decodeHeader(pieces[i], 0, HEADER_BYTES, 0)!;
      const first = i++;
      let left = header.lengthBytes;
      while (left > 0) left -= pieces[i++].length;
      const frameBytes = HEADER_BYTES + header.lengthBytes;
      const packable = header.command === TXN.CONTINUE || header.command === TXN.EVENT;
      if (!packable || frameBytes > BATCH_BYTES) {
        this.#flush(out);
        for (let at = first; at < i; at++) out.push(pieces[at]);
        continue;
      }
      if (this.#batchBytes + frameBytes > BATCH_BYTES) this.#flush(out);
      for (let at = first; at < i; at++) {
        this.#batch.set(pieces[at], this.#batchBytes);
        this.#batchBytes += pieces[at].length;
      }
    }
    this.#flush(out);
    this.counters.packingMs += this.#clock() - begunAt;
    return out;
  }

  #flush(out: Uint8Array[]): void {
    if (this.#batchBytes === 0) return;
    const packed = this.#packed;
    const body = HEADER_BYTES + LENGTH_BYTES;
    const end = this.#zstd.compress(this.#batch, this.#batchBytes, packed, body);
    packed.set(encodeHeader({
      command: TXN.PACKED,
      flags: 0,
      sequence: 0,
      transaction: 0,
      lengthBytes: end - HEADER_BYTES,
    }));
    new DataView(packed.buffer).setUint32(HEADER_BYTES, this.#batchBytes);
    this.counters.fromBytes += this.#batchBytes;
    this.counters.toBytes += end;
    this.#batchBytes = 0;
    out.push(packed.slice(0, end));
  }
}

/** Takes what a {@link FramePacker} made. */
export class FrameUnpacker {
  #zstd: ZstdDecompressor | undefined;
  readonly #blocks = new ZstdBlocks();
  #frames = new Uint8Array(0);

  /**
   * Takes the PACKED frame whose payload is `bytes[at, end)`, and hands on what is in it.
   *
   * @param offset Of the frame's header in the connection; faults within are told to be there.
   * @throws {WireError} `bad-value` or `bad-length` where it is no such frame, or holds others than
   *   whole CONTINUE and EVENT frames; and what the visitor throws.
   */
  unpack(
    bytes: Uint8Array,
    at: number,
    end: number,
    offset: number,
    visitor: FrameVisitor,
  ): void {
    const lengthBytes = new DataView(bytes.buffer, bytes.byteOffset + at, 4).getUint32(0);
    if (lengthBytes < HEADER_BYTES || lengthBytes > MAX_PACKED_BYTES) {
      refuse(
        offset,
        "bad-length",
        `a PACKED frame of ${lengthBytes} bytes; from ${HEADER_BYTES} to ${MAX_PACKED_BYTES} are taken`,
      );
    }
    const fault = this.#blocks.walk(bytes, at + LENGTH_BYTES, end);
    if (fault !== undefined) refuse(offset, "bad-value", `a PACKED frame whose zstd ${fault}`);
    if (this.#frames.length <= lengthBytes) {
      this.#frames = new Uint8Array(Math.max(lengthBytes, BATCH_BYTES) + 1);
    }
    const frames = this.#frames;
    this.#zstd ??= new ZstdDecompressor();
    if (!this.#zstd.decompress(bytes, at + LENGTH_BYTES, end, frames, lengthBytes)) {
      refuse(
        offset,
        "bad-value",
        `a PACKED frame whose zstd is damaged, or not of ${lengthBytes} bytes`,
      );
    }
    handOn(frames, lengthBytes, offset, visitor);
  }
}

function handOn(
  frames: Uint8Array,
  lengthBytes: number,
  offset: number,
  visitor: FrameVisitor,
): void {
  for (let at = 0; at < lengthBytes;) {
    const header = decodeHeader(frames, at, lengthBytes, offset);
    const end = header === undefined ? Infinity : at + HEADER_BYTES + header.lengthBytes;
    if (header === undefined || end > lengthBytes) {
      return refuse(offset, "bad-length", "a PACKED frame ends inside a frame");
    }
    if (header.command !== TXN.CONTINUE && header.command !== TXN.EVENT) {
      refuse(offset, "bad-order", `${frameName(header.command)} inside a PACKED frame`);
    }
    visitor.check(header, offset);
    visitor.streamed(header, offset);
    if (header.lengthBytes > 0) visitor.piece(frames, at + HEADER_BYTES, end);
    at = end;
  }
}
