import { WireError } from "../../errors.ts";
import { composeNamedHeader } from "../../qemu/compose.ts";
import type { RamRecord } from "../../qemu/ram_record.ts";
import { sameBlocks } from "../../qemu/same_blocks.ts";
import { RAM_SAVE_FLAG, type RamBlock } from "../../qemu/wire.ts";
import type { TxnSender } from "../../txn/sender.ts";
import { type DeltaCache, DIFFERENCE } from "./delta_cache.ts";
import type { ReplicaDigests } from "./digest_exchange.ts";
import type { DigestTable, PageDigest } from "../pages/page_digest.ts";
import { ReceiverLimit } from "./receiver_limit.ts";
import { RecordWriter } from "./record_writer.ts";

/** Counters since the start. */
export interface PrimaryCounters {
  committed: number;
  pages: number;
  zeroPages: number;
  /** How many pages were not sent because the replica has them. */
  unchangedPages: number;
  /**
   * Bytes of complete transactions that are not RAM records: device state, and the framing around
   * it.
   */
  stateBytes: number;
  /** How many of `pages` were sent as differences. */
  deltaPages: number;
  /** Bytes of QEMU's stream that transactions are made of. */
  streamBytes: number;
  /** Bytes of transactions' payload that were sent, before packing. */
  payloadBytes: number;
  lastPayloadBytes: number;
}

/** The most bytes before a stream's block list, which are kept until it has come. */
const MAX_PROLOGUE_BYTES = 4 * 2 ** 20;

/** Pieces up to this size are copied rather than sent from where they are. */
const MAX_JOINED_BYTES = 8192;

/** The flag of each kind of record in its header. */
const FLAGS = {
  page: RAM_SAVE_FLAG.PAGE,
  fill: RAM_SAVE_FLAG.ZERO,
  xbzrle: RAM_SAVE_FLAG.XBZRLE,
} as const;

/**
 * Forwards a stream's bytes into transactions: as they are, without pages that the replica has;
 * with a {@link DeltaCache} it sends changed pages as differences.
 *
 * Forwarded bytes share the memory given to {@link open}. A record is left out by forwarding the
 * bytes before it and going on behind it; the next record may then have to be given the block's
 * name, which the record left out had.
 */
export class StreamForwarder {
  readonly #txn: TxnSender;
  readonly counters: PrimaryCounters;
  /** The bytes being parsed and the stream offset of index 0. */
  #bytes: Uint8Array = new Uint8Array(0);
  #view: DataView | undefined;
  #base = 0;
  /** The stream offset from which bytes of the open transaction are still to be forwarded. */
  #from = 0;
  /** A full stream's bytes up to its block list, which decides how the transaction begins. */
  #prologue: Uint8Array | undefined;
  /** The block to which CONTINUE refers at the receiver. */
  #sentBlock = -1;
  #blocks: readonly RamBlock[] = [];
  #pageBytes = 0;

  #digests: DigestTable | undefined;
  /** The blocks that the table is of. */
  #digestBlocks: readonly RamBlock[] = [];
  #digest: PageDigest | undefined;
  #comparing = false;

  readonly #limit: ReceiverLimit;
  readonly #cache: DeltaCache | undefined;
  readonly #writer: RecordWriter | undefined;
  #difference = new Uint8Array(0);
  /** Whether the open transaction is a full stream that builds on no replica. */
  #fresh = false;
  /** Whether pages are sent as differences, from the next transaction on. */
  deltas = false;
  /** Whether pages that the receiver has already are left out. */
  dedup = false;

  constructor(txn: TxnSender, counters: PrimaryCounters, cache?: DeltaCache) {
    this.#txn = txn;
    this.counters = counters;
    this.#limit = new ReceiverLimit(txn);
    this.#cache = cache;
    if (cache !== undefined) this.#writer = new RecordWriter((bytes) => this.#send(bytes));
  }

  /** Whether the replica's digests are known. */
  get comparable(): boolean {
    return this.#digests !== undefined;
  }

  /** Sets the replica's digests. */
  setDigests({ table, digest }: ReplicaDigests, blocks: readonly RamBlock[]): void {
    this.#digests = table;
    this.#digestBlocks = blocks;
    this.#digest = digest;
  }

  forgetDigests(): void {
    this.#digests = undefined;
  }

  /** Bytes are about to be parsed. @param base The stream offset of `bytes[0]`. */
  open(bytes: Uint8Array, base: number): void {
    this.#base = base;
    if (bytes === this.#bytes) return;
    this.#bytes = bytes;
    if (this.#cache === undefined) return;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The bytes were parsed up to `bytes[next]`, and are not needed any more. */
  close(next: number): void {
    const offset = this.#base + next;
    if (this.#prologue !== undefined) this.#keepPrologue(offset);
    else if (this.#txn.open) this.flush(offset);
  }

  /** A stream's header is at `offset`. */
  beginStream(offset: number): void {
    this.#prologue = new Uint8Array(0);
    this.#from = offset;
  }

  /**
   * The block list has come: opens the transaction, which builds on the replica if that has the
   * same blocks.
   */
  beginFull(blocks: readonly RamBlock[], pageBytes: number, endOffset: number): void {
    const based = this.#digests !== undefined && sameBlocks(this.#digestBlocks, blocks);
    // The table does not describe the replica after this stream.
    if (!based) this.#digests = undefined;
    this.#comparing = based;
    this.#blocks = blocks;
    this.#pageBytes = pageBytes;
    this.#sentBlock = -1;
    // Of the replica of an earlier session, the pages are not known.
    if (!based || !this.#cache?.begun) this.#cache?.begin(blocks, pageBytes);
    this.#fresh = !based;
    if (this.#cache !== undefined) this.#difference = new Uint8Array(pageBytes);
    this.#txn.begin(based ? "full-on-replica" : "full");
    this.#limit.blocks(blocks, pageBytes);
    this.#limit.begin(!based);
    this.#keepPrologue(endOffset);
    this.counters.lastPayloadBytes = 0;
    this.counters.streamBytes += this.#prologue!.length;
    this.#send(this.#prologue!);
    this.#prologue = undefined;
  }

  /** The transaction's last byte is at `endOffset`. The caller commits it. */
  end(endOffset: number): void {
    this.flush(endOffset);
    this.#writer?.flush();
    this.#comparing = false;
  }

  /** A checkpoint begins at `offset`. */
  beginCheckpoint(offset: number): void {
    this.#txn.begin("checkpoint");
    this.#limit.begin(false);
    this.#fresh = false;
    this.counters.lastPayloadBytes = 0;
    this.#from = offset;
  }

  /**
   * Sends an event with the open transaction.
   *
   * @param pieces As {@link TxnSender.event} has them.
   * @throws {WireError} `too-large` if the receiver takes no more.
   */
  sendEvent(pieces: readonly Uint8Array[]): void {
    this.#limit.event(pieces);
    this.#txn.event(pieces);
  }

  /**
   * Drops the open transaction. The table and the cache have pages of it, which the replica does
   * not get.
   */
  cancel(): void {
    if (this.#txn.open) this.#txn.cancel();
    this.#prologue = undefined;
    this.#comparing = false;
    this.#digests = undefined;
    this.#cache?.clear();
    this.#writer?.drop();
    // The receiver's idea of the last block is now the last committed transaction's.
    this.#sentBlock = -1;
  }

  /** Takes a page of the open transaction: sends its record, a difference, or nothing. */
  page(record: RamRecord): void {
    switch (record.kind) {
      case "page":
        return this.#wholePage(record);
      case "fill":
        return this.#filledPage(record);
      case "xbzrle":
        return this.#pageDifference(record);
    }
  }

  #wholePage(record: RamRecord): void {
    if (this.#comparing) {
      const { bytes, at } = record;
      const name = this.#blocks[record.block].name;
      const page = record.pageOffset / this.#pageBytes;
      const digest = this.#digest!(bytes.subarray(at, at + this.#pageBytes));
      if (this.#digests!.matches(name, page, digest)) return this.#skip(record);
      this.#digests!.set(name, page, digest);
    }
    if (this.#cache !== undefined && this.#sendLess(record)) return;
    this.counters.pages++;
    this.#keep(record);
  }

  /** Sends a page as a difference, or leaves it out. @returns Whether that was possible. */
  #sendLess(record: RamRecord): boolean {
    const cache = this.#cache!;
    const { block, pageOffset, at } = record;
    const page = pageOffset / this.#pageBytes;
    // Most pages of a first pass are never sent again: keeping copies would cost more than it
    // saves.
    if (this.#fresh || !this.deltas && !this.dedup) {
      cache.forget(block, page);
      return false;
    }
    // A longer difference is hardly smaller than the page, and takes longer to apply.
    const limit = this.deltas ? (3 * this.#pageBytes) >>> 2 : 0;
    const lengthBytes = cache.difference(block, page, this.#view!, at, this.#difference, limit);
    if (lengthBytes === DIFFERENCE.whole) return false;
    if (lengthBytes === 0 && this.dedup) {
      this.#skip(record);
      return true;
    }
    if (this.#limit.countsPages) this.#limit.record(record);
    this.flush(record.offset);
    const name = this.#sentBlock === block ? undefined : this.#blocks[block].name;
    this.#writer!.xbzrle(name, pageOffset, this.#difference, lengthBytes);
    this.#sentBlock = block;
    this.#passOver(record);
    this.counters.pages++;
    this.counters.deltaPages++;
    return true;
  }

  #filledPage(record: RamRecord): void {
    const isZero = record.bytes[record.at] === 0;
    const page = record.pageOffset / this.#pageBytes;
    if (this.#comparing && isZero) {
      const name = this.#blocks[record.block].name;
      if (this.#digests!.isZero(name, page)) return this.#skip(record);
      this.#digests!.setZero(name, page);
    } else if (this.#comparing) this.#forget(record);
    if (this.#cache !== undefined) {
      if (!isZero) this.#cache.forget(record.block, page);
      else if (this.#cache.setZeros(record.block, page) && this.dedup) return this.#skip(record);
    }
    this.counters.zeroPages++;
    this.#keep(record);
  }

  #pageDifference(record: RamRecord): void {
    if (this.#comparing) this.#forget(record);
    this.#cache?.forget(record.block, record.pageOffset / this.#pageBytes);
    this.counters.pages++;
    this.#keep(record);
  }

  /** Forwards the bytes before `toOffset`. */
  flush(toOffset: number): void {
    if (toOffset <= this.#from) return;
    const from = this.#from - this.#base;
    const to = toOffset - this.#base;
    this.counters.streamBytes += to - from;
    this.#put(this.#bytes.subarray(from, to));
    this.#from = toOffset;
  }

  /**
   * Small pieces are joined, since each costs a frame and a part of a write; large ones are not
   * copied.
   */
  #put(bytes: Uint8Array): void {
    if (this.#writer === undefined) return this.#send(bytes);
    if (bytes.length <= MAX_JOINED_BYTES) return this.#writer.copy(bytes);
    this.#writer.flush();
    this.#send(bytes);
  }

  #send(bytes: Uint8Array): void {
    this.#txn.forward(bytes);
    this.counters.payloadBytes += bytes.length;
    this.counters.lastPayloadBytes += bytes.length;
  }

  /** The replica's version of the page is not known any more. */
  #forget({ block, pageOffset }: RamRecord): void {
    this.#digests!.forget(this.#blocks[block].name, pageOffset / this.#pageBytes);
  }

  /** Leaves a record out. */
  #skip(record: RamRecord): void {
    this.counters.unchangedPages++;
    this.flush(record.offset);
    this.#passOver(record);
  }

  /** Goes on behind a record; everything before it is forwarded. */
  #passOver(record: RamRecord): void {
    this.counters.streamBytes += record.endOffset - record.offset;
    this.#from = record.endOffset;
  }

  /** Lets a record pass; adds its block's name if the record with the name was left out. */
  #keep(record: RamRecord): void {
    if (this.#limit.countsPages) this.#limit.record(record);
    const { block, offset } = record;
    if (record.named) this.#sentBlock = block;
    else if (this.#sentBlock !== block) {
      this.flush(offset);
      const flag = FLAGS[record.kind];
      this.#put(composeNamedHeader(this.#blocks[block].name, record.pageOffset, flag));
      this.#from = offset + 8;
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
