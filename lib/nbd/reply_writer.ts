import { StateError } from "../errors.ts";
import type { NbdRequest } from "./request.ts";
import {
  BASE_ALLOCATION_ID,
  CHUNK_HEADER_BYTES,
  MAX_STRING_BYTES,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
  type NbdError,
  SIMPLE_REPLY_BYTES,
  writeU16,
  writeU32,
  writeU64,
} from "./wire.ts";

/** A run of bytes with one status. */
export interface Extent {
  readonly lengthBytes: number;
  /** NBD_STATE_HOLE, NBD_STATE_ZERO. */
  readonly flags: number;
}

/** A piece of the data read, in the request's order: bytes, or a number of zeroes. */
export type ReadChunk = Uint8Array | { readonly zeroBytes: number };

const SLAB_BYTES = 8192;
const utf8 = new TextEncoder();

/**
 * Encodes replies into a list of views.
 *
 * Headers are put one after the other into slabs, so that several of them are one view; data is
 * passed on without a copy, and must not change until it has been written.
 */
export class ReplyWriter {
  #slab = new Uint8Array(SLAB_BYTES);
  /** `slab[from, at)` is not in the output yet. */
  #from = 0;
  #at = 0;
  #output: Uint8Array[] = [];

  constructor(readonly structured: boolean) {}

  takeOutput(): Uint8Array[] {
    this.#cut();
    const output = this.#output;
    if (output.length > 0) this.#output = [];
    return output;
  }

  /**
   * Success without data. A simple reply is allowed, and shorter, also if chunks were negotiated.
   */
  done(request: NbdRequest): void {
    this.#simple(request, 0);
  }

  /** @param data All that was asked for. */
  data(request: NbdRequest, data: Uint8Array): void {
    if (this.structured) {
      this.#dataChunk(request, NBD_REPLY_FLAG_DONE, request.offset, data);
    } else {
      this.#simple(request, 0);
      this.#pass(data);
    }
  }

  /** All that was asked for, in order; at least one chunk, none empty. Structured replies only. */
  chunks(request: NbdRequest, chunks: readonly ReadChunk[]): void {
    let offset = request.offset;
    chunks.forEach((chunk, i) => {
      const flags = i === chunks.length - 1 ? NBD_REPLY_FLAG_DONE : 0;
      if (chunk instanceof Uint8Array) {
        this.#dataChunk(request, flags, offset, chunk);
        offset += chunk.length;
        return;
      }
      this.#chunk(request, flags, NBD_REPLY_TYPE.OFFSET_HOLE, 12);
      const at = this.#room(12);
      writeU64(this.#slab, at, offset);
      writeU32(this.#slab, at + 8, chunk.zeroBytes);
      offset += chunk.zeroBytes;
    });
  }

  /** One descriptor chunk: `u32 context id, n × (u32 length, u32 flags)`. */
  blockStatus(request: NbdRequest, extents: readonly Extent[]): void {
    const length = 4 + 8 * extents.length;
    this.#chunk(request, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE.BLOCK_STATUS, length);
    const payload = new Uint8Array(length);
    writeU32(payload, 0, BASE_ALLOCATION_ID);
    extents.forEach(({ lengthBytes, flags }, i) => {
      writeU32(payload, 4 + 8 * i, lengthBytes);
      writeU32(payload, 8 + 8 * i, flags);
    });
    this.#pass(payload);
  }

  /**
   * @param message For people; only structured replies carry it.
   * @param offset The offset in the export of the first byte at fault, if known.
   */
  error(request: NbdRequest, error: NbdError, message: string, offset?: number): void {
    if (!this.structured) return this.#simple(request, error);
    const text = utf8.encode(message).subarray(0, MAX_STRING_BYTES);
    const tail = offset === undefined ? 0 : 8;
    const type = offset === undefined ? NBD_REPLY_TYPE.ERROR : NBD_REPLY_TYPE.ERROR_OFFSET;
    this.#chunk(request, NBD_REPLY_FLAG_DONE, type, 6 + text.length + tail);
    const payload = new Uint8Array(6 + text.length + tail);
    writeU32(payload, 0, error);
    writeU16(payload, 4, text.length);
    payload.set(text, 6);
    if (offset !== undefined) writeU64(payload, 6 + text.length, offset);
    this.#pass(payload);
  }

  #simple({ cookieHigh, cookieLow }: NbdRequest, error: number): void {
    const at = this.#room(SIMPLE_REPLY_BYTES);
    writeU32(this.#slab, at, NBD_SIMPLE_REPLY_MAGIC);
    writeU32(this.#slab, at + 4, error);
    writeU32(this.#slab, at + 8, cookieHigh);
    writeU32(this.#slab, at + 12, cookieLow);
  }

  #chunk({ cookieHigh, cookieLow }: NbdRequest, flags: number, type: number, length: number): void {
    if (!this.structured) throw new StateError("an NBD chunk without structured replies");
    const at = this.#room(CHUNK_HEADER_BYTES);
    writeU32(this.#slab, at, NBD_STRUCTURED_REPLY_MAGIC);
    writeU16(this.#slab, at + 4, flags);
    writeU16(this.#slab, at + 6, type);
    writeU32(this.#slab, at + 8, cookieHigh);
    writeU32(this.#slab, at + 12, cookieLow);
    writeU32(this.#slab, at + 16, length);
  }

  #dataChunk(request: NbdRequest, flags: number, offset: number, data: Uint8Array): void {
    this.#chunk(request, flags, NBD_REPLY_TYPE.OFFSET_DATA, 8 + data.length);
    const at = this.#room(8);
    writeU64(this.#slab, at, offset);
    this.#pass(data);
  }

  /** Room for `bytes` in the slab. */
  #room(bytes: number): number {
    if (this.#at + bytes > this.#slab.length) {
      this.#cut();
      // The old slab is still being written.
      this.#slab = new Uint8Array(SLAB_BYTES);
      this.#from = this.#at = 0;
    }
    const at = this.#at;
    this.#at += bytes;
    return at;
  }

  #pass(data: Uint8Array): void {
    this.#cut();
    this.#output.push(data);
  }

  #cut(): void {
    if (this.#from === this.#at) return;
    this.#output.push(this.#slab.subarray(this.#from, this.#at));
    this.#from = this.#at;
  }
}
