import { WireError } from "../errors.ts";
import { composeNamedHeader } from "../qemu/compose.ts";
import { RAM_SAVE_FLAG, type RamBlock } from "../qemu/wire.ts";
import type { TxnSender } from "../txn/sender.ts";
import type { DigestTable, PageDigest } from "./page_digest.ts";

/** Counters since the start. */
export interface PrimaryCounters {
  committed: number;
  pages: number;
  zeroPages: number;
  /** Pages that were not sent because the replica has them. */
  unchangedPages: number;
  /** Bytes of complete transactions that are no RAM record: device state, and what frames it. */
  stateBytes: number;
  /** Bytes of QEMU's stream that were sent on. */
  payloadBytes: number;
  lastPayloadBytes: number;
}

/** Bytes before a stream's block list, at the most: they are kept until it has come. */
const MAX_PROLOGUE_BYTES = 4 * 2 ** 20;

/**
 * Forwards a stream's bytes into transactions as they are, but for pages that the replica has.
 *
 * What is forwarded shares the memory given to {@link open}. A record is left out by forwarding
 * what stands before it and going on behind it; the one behind it may then have to be given the
 * block name that it relied on.
 */
export class StreamForwarder {
  readonly #txn: TxnSender;
  readonly counters: PrimaryCounters;
  /** The bytes being parsed and the stream offset of index 0. */
  #bytes: Uint8Array = new Uint8Array(0);
  #base = 0;
  /** Stream offset from which bytes of the open transaction are still to be forwarded. */
  #from = 0;
  /** A full stream's bytes up to its block list, which decides how the transaction begins. */
  #prologue: Uint8Array | undefined;
  /** The block that the receiver takes CONTINUE for. */
  #sentBlock = -1;
  #blocks: readonly RamBlock[] = [];
  #pageBytes = 0;

  #digests: DigestTable | undefined;
  #digestPages: ReadonlyMap<string, number> = new Map();
  #digest: PageDigest | undefined;
  #comparing = false;

  constructor(txn: TxnSender, counters: PrimaryCounters) {
    this.#txn = txn;
    this.counters = counters;
  }

  /** Whether it is known what the replica holds. */
  get comparable(): boolean {
    return this.#digests !== undefined;
  }

  /** Says what the replica holds, see {@link Primary.setDigests}. */
  setDigests(table: DigestTable, pages: ReadonlyMap<string, number>, digest: PageDigest): void {
    this.#digests = table;
    this.#digestPages = pages;
    this.#digest = digest;
  }

  forgetDigests(): void {
    this.#digests = undefined;
  }

  /** Bytes are about to be parsed. @param base Stream offset of `bytes[0]`. */
  open(bytes: Uint8Array, base: number): void {
    this.#bytes = bytes;
    this.#base = base;
  }

  /** They were parsed up to `bytes[next]`: nothing of them is needed any more. */
  close(next: number): void {
    const offset = this.#base + next;
    if (this.#prologue !== undefined) this.#keepPrologue(offset);
    else if (this.#txn.open) this.flush(offset);
  }

  /** A stream's header stands at `offset`. */
  beginStream(offset: number): void {
    this.#prologue = new Uint8Array(0);
    this.#from = offset;
  }

  /** The block list has come: opens the transaction, on the replica if it has the same blocks. */
  beginFull(blocks: readonly RamBlock[], pageBytes: number, endOffset: number): void {
    const known = [...this.#digestPages];
    const based = this.#digests !== undefined && blocks.length === known.length &&
      blocks.every(({ name, lengthBytes }, i) =>
        known[i][0] === name && known[i][1] === lengthBytes / pageBytes
      );
    // What the replica holds after this stream, the table does not say.
    if (!based) this.#digests = undefined;
    this.#comparing = based;
    this.#blocks = blocks;
    this.#pageBytes = pageBytes;
    this.#sentBlock = -1;
    this.#txn.begin(based ? "full-on-replica" : "full");
    this.#keepPrologue(endOffset);
    this.#txn.forward(this.#prologue!);
    this.counters.lastPayloadBytes = this.#prologue!.length;
    this.counters.payloadBytes += this.#prologue!.length;
    this.#prologue = undefined;
  }

  /** The stream's last byte is at `endOffset`; the transaction is the caller's to commit. */
  endFull(endOffset: number): void {
    this.flush(endOffset);
    this.#comparing = false;
  }

  /** A checkpoint begins at `offset`. */
  beginCheckpoint(offset: number): void {
    this.#txn.begin("checkpoint");
    this.counters.lastPayloadBytes = 0;
    this.#from = offset;
  }

  /** Drops what is open. The table told of pages that the replica now does not get. */
  cancel(): void {
    if (this.#txn.open) this.#txn.cancel();
    this.#prologue = undefined;
    this.#comparing = false;
    this.#digests = undefined;
  }

  page(
    block: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    recordOffset: number,
    named: boolean,
  ): void {
    if (this.#comparing) {
      const name = this.#blocks[block].name;
      const pageBytes = this.#pageBytes;
      const page = offset / pageBytes;
      const digest = this.#digest!(bytes.subarray(at, at + pageBytes));
      if (this.#digests!.matches(name, page, digest)) {
        return this.#skip(recordOffset, this.#base + at + pageBytes);
      }
      this.#digests!.set(name, page, digest);
    }
    this.counters.pages++;
    this.#keep(block, offset, RAM_SAVE_FLAG.PAGE, recordOffset, named);
  }

  fill(block: number, offset: number, value: number, recordOffset: number, named: boolean): void {
    if (this.#comparing && value === 0) {
      const name = this.#blocks[block].name;
      const page = offset / this.#pageBytes;
      if (this.#digests!.isZero(name, page)) {
        const headerBytes = 8 + (named ? 1 + name.length : 0);
        return this.#skip(recordOffset, recordOffset + headerBytes + 1);
      }
      this.#digests!.setZero(name, page);
    } else if (this.#comparing) this.#forget(block, offset);
    this.counters.zeroPages++;
    this.#keep(block, offset, RAM_SAVE_FLAG.ZERO, recordOffset, named);
  }

  xbzrle(
    block: number,
    offset: number,
    recordOffset: number,
    named: boolean,
  ): void {
    if (this.#comparing) this.#forget(block, offset);
    this.counters.pages++;
    this.#keep(block, offset, RAM_SAVE_FLAG.XBZRLE, recordOffset, named);
  }

  /** Forwards what lies before `toOffset`. */
  flush(toOffset: number): void {
    if (toOffset <= this.#from) return;
    const bytes = this.#bytes.subarray(this.#from - this.#base, toOffset - this.#base);
    this.#txn.forward(bytes);
    this.counters.payloadBytes += bytes.length;
    this.counters.lastPayloadBytes += bytes.length;
    this.#from = toOffset;
  }

  #forget(block: number, offset: number): void {
    this.#digests!.forget(this.#blocks[block].name, offset / this.#pageBytes);
  }

  /** Leaves a record out. */
  #skip(recordOffset: number, recordEnd: number): void {
    this.counters.unchangedPages++;
    this.flush(recordOffset);
    this.#from = recordEnd;
  }

  /** Lets a record pass; names its block where the record that did was left out. */
  #keep(
    block: number,
    offset: number,
    flag: number,
    recordOffset: number,
    named: boolean,
  ): void {
    if (named) this.#sentBlock = block;
    else if (this.#sentBlock !== block) {
      this.flush(recordOffset);
      this.#txn.forward(composeNamedHeader(this.#blocks[block].name, offset, flag));
      this.#from = recordOffset + 8;
      this.#sentBlock = block;
    }
  }

  #keepPrologue(toOffset: number): void {
    const fresh = this.#bytes.subarray(this.#from - this.#base, toOffset - this.#base);
    const joined = new Uint8Array(this.#prologue!.length + fresh.length);
    if (joined.length > MAX_PROLOGUE_BYTES) {
      throw new WireError(
        "migration",
        toOffset,
        "too-large",
        `no list of RAM blocks in the stream's first ${MAX_PROLOGUE_BYTES} bytes`,
      );
    }
    joined.set(this.#prologue!);
    joined.set(fresh, this.#prologue!.length);
    this.#prologue = joined;
    this.#from = toOffset;
  }
}
