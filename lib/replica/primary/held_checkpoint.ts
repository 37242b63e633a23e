import type { StreamForwarder } from "./stream_forwarder.ts";

const PAGE = 0;
const FILL = 1;
const XBZRLE = 2;
/** Numbers a record is kept as: kind, block, offset, place or fill value, record's offset, named. */
const FIELDS = 6;

/** A part of the stream as it was read, and how many records end with it. */
interface Part {
  readonly bytes: Uint8Array;
  /** Stream offset of `bytes[0]`. */
  readonly base: number;
  endOffset: number;
  records: number;
}

/** How long a checkpoint may take to read before what there is of it is forwarded. */
const MAX_HOLD_MS = 100;

/**
 * A checkpoint may be read first and forwarded afterwards: what takes time, making less of it, is
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
  #records = new Float64Array(FIELDS * 512);
  #count = 0;
  #endOffset = 0;

  /** @param maxBytes Bytes of stream that are held at the most. */
  constructor(forwarder: StreamForwarder, maxBytes: number) {
    this.#forwarder = forwarder;
    this.#maxBytes = maxBytes;
  }

  /** True from {@link begin} on until all is forwarded: bytes read in between must not change. */
  get holding(): boolean {
    return this.#state !== "idle";
  }
  /** True while a complete checkpoint waits for {@link forward}. */
  get read(): boolean {
    return this.#state === "read";
  }

  /** Bytes are about to be parsed. @param base Stream offset of `bytes[0]`. */
  open(bytes: Uint8Array, base: number): void {
    this.#bytes = bytes;
    this.#base = base;
    if (!this.holding) this.#forwarder.open(bytes, base);
  }

  /** They were parsed up to `bytes[next]`. */
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

  /** Forwards what is held, and holds nothing any more. */
  forward(): void {
    let record = 0;
    for (const { bytes, base, endOffset, records } of this.#parts) {
      this.#forwarder.open(bytes, base);
      for (; record < records; record++) this.#forward(bytes, FIELDS * record);
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

  page(
    block: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    recordOffset: number,
    named: boolean,
  ): void {
    if (this.holding) this.#add(PAGE, block, offset, at, recordOffset, named);
    else this.#forwarder.page(block, offset, bytes, at, recordOffset, named);
  }

  fill(block: number, offset: number, value: number, recordOffset: number, named: boolean): void {
    if (this.holding) this.#add(FILL, block, offset, value, recordOffset, named);
    else this.#forwarder.fill(block, offset, value, recordOffset, named);
  }

  xbzrle(block: number, offset: number, recordOffset: number, named: boolean): void {
    if (this.holding) this.#add(XBZRLE, block, offset, 0, recordOffset, named);
    else this.#forwarder.xbzrle(block, offset, recordOffset, named);
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

  #forward(bytes: Uint8Array, i: number): void {
    const forwarder = this.#forwarder;
    const record = this.#records;
    const block = record[i + 1];
    const offset = record[i + 2];
    const recordOffset = record[i + 4];
    const named = record[i + 5] === 1;
    switch (record[i]) {
      case PAGE:
        return forwarder.page(block, offset, bytes, record[i + 3], recordOffset, named);
      case FILL:
        return forwarder.fill(block, offset, record[i + 3], recordOffset, named);
      case XBZRLE:
        return forwarder.xbzrle(block, offset, recordOffset, named);
    }
  }

  #add(
    kind: number,
    block: number,
    offset: number,
    place: number,
    recordOffset: number,
    named: boolean,
  ): void {
    const i = FIELDS * this.#count++;
    if (i === this.#records.length) {
      const grown = new Float64Array(2 * i);
      grown.set(this.#records);
      this.#records = grown;
    }
    this.#records[i] = kind;
    this.#records[i + 1] = block;
    this.#records[i + 2] = offset;
    this.#records[i + 3] = place;
    this.#records[i + 4] = recordOffset;
    this.#records[i + 5] = named ? 1 : 0;
  }
}
