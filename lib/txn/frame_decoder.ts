import { FrameUnpacker } from "./packing.ts";
import { decodeHeader } from "./frame_header.ts";
import { HEADER_BYTES, TXN } from "./wire.ts";
import { refuse } from "./wire_fault.ts";
import type { FrameVisitor } from "./frame_visitor.ts";

/**
 * Cuts a connection's bytes into frames. Payloads of CONTINUE and EVENT are passed on as they
 * arrive; what is left over (a header or a small frame, cut) must be presented again.
 */
export class FrameDecoder {
  #consumed = 0;
  #pieceBytes = 0;
  /** Where PACKED frames are taken. */
  readonly #unpacker: FrameUnpacker | undefined;

  /** @param packed Whether the peer may pack frames: a receiver's may, a sender's may not. */
  constructor(packed: boolean) {
    this.#unpacker = packed ? new FrameUnpacker() : undefined;
  }

  /** Bytes taken so far. */
  get offset(): number {
    return this.#consumed;
  }

  /** True between frames. */
  get atBoundary(): boolean {
    return this.#pieceBytes === 0;
  }

  /** @returns One past the last byte taken of `bytes[start, end)`. */
  decode(bytes: Uint8Array, start: number, end: number, visitor: FrameVisitor): number {
    let at = start;
    const base = this.#consumed - start;
    while (at < end) {
      if (visitor.isOver) {
        this.#consumed = base + end;
        return end;
      }
      if (this.#pieceBytes > 0) {
        const pieceEnd = Math.min(end, at + this.#pieceBytes);
        this.#pieceBytes -= pieceEnd - at;
        this.#consumed = base + pieceEnd;
        visitor.piece(bytes, at, pieceEnd);
        at = pieceEnd;
        continue;
      }
      const header = decodeHeader(bytes, at, end, base + at);
      if (header === undefined) break;
      visitor.check(header, base + at);
      const body = at + HEADER_BYTES;
      if (header.command === TXN.CONTINUE || header.command === TXN.EVENT) {
        this.#pieceBytes = header.lengthBytes;
        this.#consumed = base + body;
        visitor.streamed(header, base + at);
        at = body;
        continue;
      }
      if (end - body < header.lengthBytes) break;
      const next = body + header.lengthBytes;
      this.#consumed = base + next;
      if (header.command === TXN.PACKED && this.#unpacker !== undefined) {
        this.#unpacker.unpack(bytes, body, next, base + at, visitor);
        at = next;
        continue;
      }
      visitor.frame(header, bytes.subarray(body, next), base + at);
      at = next;
    }
    return at;
  }

  /** Says that the connection ended; throws `truncated` if a frame was cut. */
  finish(unparsedBytes: number): void {
    if (this.atBoundary && unparsedBytes === 0) return;
    refuse(
      this.#consumed + unparsedBytes,
      "truncated",
      "the connection ended inside a frame",
      "the peer died or the link broke",
    );
  }
}
