import { blankRamRecord, type RamRecord } from "../../qemu/ram_record.ts";
import type { StreamForwarder } from "./stream_forwarder.ts";

const KINDS = ["page", "fill", "xbzrle"] as const;
/**
 * How many numbers a record is kept as: kind, block, page's offset, named, offset, place, length.
 * There may be millions of pages of zeros, 9 bytes each: an object for each would be too much.
 */
const FIELDS = 7;

/** A part of the stream as it was read, and the number of records up to its end. */
interface Part {
  readonly bytes: Uint8Array;
  /** The stream offset of `bytes[0]`. */
  readonly base: number;
  endOffset: number;
  records: number;
}

/** How long reading a checkpoint may take before the part that was read is forwarded. */
const MAX_HOLD_MS = 100;

/**
 * Holds a checkpoint that is read first and forwarded afterwards: compression, which takes time, is
 * put off until QEMU has its answer and the VM runs. Everything else goes to the forwarder at once.
 *
 * ```text
 *        begin()              complete()           settle()
 * idle ──────────► reading ────────────────► read ──────────► idle, all is forwarded
 *                     └── too much, or too slow: forwarded so far, and from there on at once
 * ```
 *
 * The bytes are not copied: they stay as they are while {@link holding}.
 */
export class HeldCheckpoint {
  readonly #forwarder: StreamForwarder;
  readonly #maxBytes: number;
  #state: "idle" | "reading" | "read" = "idle";
  #begunAt = 0;
  #parts: Part[] = [];
  #bytes: Uint8Array = new Uint8Array(0);
  #base = 0;
  #beginOffset = 0;
  #numbers = new Float64Array(FIELDS * 512);
  /** The record for the forwarder, filled anew for each held record. */
  readonly #record = blankRamRecord();
  #count = 0;
  #endOffset = 0;

  /** @param maxBytes The most bytes of stream to hold. */
  constructor(forwarder: StreamForwarder, maxBytes: number) {
    this.#forwarder = forwarder;
    this.#maxBytes = maxBytes;
  }

  /**
   * True from {@link begin} until everything is forwarded: bytes read in between must not change.
   */
  get holding(): boolean {
    return this.#state !== "idle";
  }
  /** True while a complete checkpoint waits for {@link forward}. */
  get read(): boolean {
    return this.#state === "read";
  }

  /** Bytes are about to be parsed. @param base The stream offset of `bytes[0]`. */
  open(bytes: Uint8Array, base: number): void {
    this.#bytes = bytes;
    this.#base = base;
    if (!this.holding) this.#forwarder.open(bytes, base);
  }

  /** The bytes were parsed up to `bytes[next]`. */
  close(next: number): void {
    if (!this.holding) return this.#forwarder.close(next);
    if (this.#state === "read") return;
    this.#hold(this.#base + next);
    if (this.#endOffset - this.#beginOffset > this.#maxBytes) this.forward();
  }

  /** A checkpoint begins at `offset`, and is held. */
  begin(offset: number, now: number): void {
    this.#state = "reading";
    this.#begunAt = now;
    this.#beginOffset = this.#endOffset = offset;
  }

  /** The checkpoint's last byte is at `endOffset`. @returns Whether it waits to be forwarded. */
  complete(endOffset: number): boolean {
    if (!this.holding) return false;
    this.#hold(endOffset);
    this.#state = "read";
    return true;
  }

  /** Forwards what is held, and stops holding. */
  forward(): void {
    let record = 0;
    for (const { bytes, base, endOffset, records } of this.#parts) {
      this.#forwarder.open(bytes, base);
      for (; record < records; record++) this.#forward(bytes, base, FIELDS * record);
      this.#forwarder.flush(endOffset);
    }
    this.drop();
  }

  /** Lets time pass: a QEMU that stalls must not keep heartbeats waiting. */
  tick(now: number): void {
    if (this.#state === "reading" && now - this.#begunAt > MAX_HOLD_MS) this.forward();
  }

  /** Forgets what is held. */
  drop(): void {
    this.#state = "idle";
    this.#parts = [];
    this.#count = 0;
  }

  page(record: RamRecord): void {
    if (this.holding) this.#add(record);
    else this.#forwarder.page(record);
  }

  #hold(endOffset: number): void {
    if (endOffset <= this.#endOffset) return;
    const part = this.#parts.at(-1);
    if (part?.bytes === this.#bytes && part.base === this.#base) {
      part.endOffset = endOffset;
      part.records = this.#count;
    } else {
      this.#parts.push({
        bytes: this.#bytes,
        base: this.#base,
        endOffset,
        records: this.#count,
      });
    }
    this.#endOffset = endOffset;
  }

  /**
   * Forwards the record that is kept at `numbers[i]`. @param base The stream offset of `bytes[0]`.
   */
  #forward(bytes: Uint8Array, base: number, i: number): void {
    const numbers = this.#numbers;
    const record = this.#record;
    record.kind = KINDS[numbers[i]];
    record.block = numbers[i + 1];
    record.pageOffset = numbers[i + 2];
    record.named = numbers[i + 3] === 1;
    record.offset = numbers[i + 4];
    record.at = numbers[i + 5];
    record.lengthBytes = numbers[i + 6];
    record.endOffset = base + record.at + record.lengthBytes;
    record.bytes = bytes;
    this.#forwarder.page(record);
  }

  #add(record: RamRecord): void {
    const i = FIELDS * this.#count++;
    if (i === this.#numbers.length) {
      const grown = new Float64Array(2 * i);
      grown.set(this.#numbers);
      this.#numbers = grown;
    }
    const numbers = this.#numbers;
    numbers[i] = KINDS.indexOf(record.kind);
    numbers[i + 1] = record.block;
    numbers[i + 2] = record.pageOffset;
    numbers[i + 3] = record.named ? 1 : 0;
    numbers[i + 4] = record.offset;
    numbers[i + 5] = record.at;
    numbers[i + 6] = record.lengthBytes;
  }
}
