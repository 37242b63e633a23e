/** For tests: a disk in memory that knows its holes, and can be made to refuse. */
import { TransportError } from "../errors.ts";
import type { DiskStore } from "./disk_tap.ts";
import type { DiskCopy } from "./replica_taps.ts";

const HOLE_BYTES = 4096;

export class FakeDisk implements DiskStore, DiskCopy {
  readonly sizeBytes: number;
  readonly bytes: Uint8Array;
  /** Writes, of data or zeros, before it is full; the one that finds it so is done by half. */
  writesLeft = Infinity;
  /** Bytes that reads got. */
  readBytes = 0;
  readonly #written: Uint8Array;

  constructor(content: number | Uint8Array) {
    this.bytes = typeof content === "number" ? new Uint8Array(content) : content.slice();
    this.sizeBytes = this.bytes.length;
    const filled = typeof content === "number" ? 0 : 1;
    this.#written = new Uint8Array(Math.ceil(this.sizeBytes / HOLE_BYTES)).fill(filled);
  }

  read(into: Uint8Array, offset: number): void {
    into.set(this.bytes.subarray(offset, offset + into.length));
    this.readBytes += into.length;
  }

  write(offset: number, data: Uint8Array): void {
    const isFull = this.writesLeft-- <= 0;
    const part = isFull ? data.subarray(0, data.length / 2) : data;
    this.bytes.set(part, offset);
    this.#written.fill(1, Math.floor(offset / HOLE_BYTES), this.#pageEnd(offset + part.length));
    if (isFull) this.#refuse();
  }

  zero(offset: number, lengthBytes: number): void {
    if (this.writesLeft-- <= 0) this.#refuse();
    const end = offset + lengthBytes;
    this.bytes.fill(0, offset, end);
    const last = end === this.sizeBytes ? this.#pageEnd(end) : Math.floor(end / HOLE_BYTES);
    this.#written.fill(0, this.#pageEnd(offset), last);
  }

  zeroBytes(offset: number, lengthBytes: number): number {
    let page = Math.floor(offset / HOLE_BYTES);
    while (page < this.#written.length && this.#written[page] === 0) page++;
    return Math.max(0, Math.min(lengthBytes, page * HOLE_BYTES - offset));
  }

  #pageEnd(offset: number): number {
    return Math.ceil(offset / HOLE_BYTES);
  }

  #refuse(): never {
    this.writesLeft = 0;
    throw new TransportError("fake", "write", "disk full", { party: "disk" });
  }
}
