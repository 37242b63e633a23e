import { WireError } from "../../errors.ts";
import type { RamRecord } from "../../qemu/ram_record.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import type { TxnSender } from "../../txn/sender.ts";
import { FEATURE } from "../../txn/hello.ts";
import { EVENT_OVERHEAD_BYTES } from "../events/tap_events.ts";
import { DirtyBitmap } from "../pages/dirty_bitmap.ts";

/**
 * Compares each transaction, before more of it is sent, with the limit that the receiver has
 * announced: for pages, each of which counts once unless it is zeros in the end, and for events.
 *
 * Pages are not counted if all of the RAM is below the limit.
 */
export class ReceiverLimit {
  readonly #txn: TxnSender;
  #mostBytes = Infinity;
  #pageBytes = 0;
  #ramBytes = 0;
  #blockPages: readonly number[] = [];
  /** For each block the pages that count; undefined while pages need not be counted. */
  #pages: DirtyBitmap[] | undefined;
  #pageCount = 0;
  #eventBytes = 0;

  constructor(txn: TxnSender) {
    this.#txn = txn;
  }

  /** Whether {@link record} has to be called. */
  get countsPages(): boolean {
    return this.#pages !== undefined;
  }

  /** A stream has announced its RAM blocks. */
  blocks(blocks: readonly RamBlock[], pageBytes: number): void {
    this.#pageBytes = pageBytes;
    this.#blockPages = blocks.map(({ lengthBytes }) => lengthBytes / pageBytes);
    this.#ramBytes = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
  }

  /** A transaction begins. @param isFresh Whether it is a full stream that builds on no replica. */
  begin(isFresh: boolean): void {
    const { features = 0, maxTransactionBytes = 0 } = this.#txn.peer ?? {};
    // 0 says that there is no limit.
    this.#mostBytes = maxTransactionBytes || Infinity;
    this.#pageCount = this.#eventBytes = 0;
    const isCounted = this.#ramBytes > this.#mostBytes &&
      !(isFresh && (features & FEATURE.storesPages) !== 0);
    this.#pages = isCounted ? this.#blockPages.map((pages) => new DirtyBitmap(pages)) : undefined;
  }

  /** A record is about to be sent, as it is or as a difference. @throws {WireError} `too-large` */
  record({ kind, block, pageOffset, bytes, at }: RamRecord): void {
    const pages = this.#pages![block];
    const page = pageOffset / this.#pageBytes;
    if (kind === "fill" && bytes[at] === 0) {
      if (pages.clear(page)) this.#pageCount--;
    } else if (pages.set(page)) this.#pageCount++;
    if (this.#pageCount * this.#pageBytes > this.#mostBytes) throw this.#tooLarge("pages");
  }

  /** An event is about to be sent. @throws {WireError} `too-large` */
  event(pieces: readonly Uint8Array[]): void {
    this.#eventBytes += EVENT_OVERHEAD_BYTES;
    for (const { length } of pieces) this.#eventBytes += length;
    if (this.#eventBytes > this.#mostBytes) throw this.#tooLarge("events");
  }

  #tooLarge(of: string): WireError {
    const what = `more than the ${this.#mostBytes} bytes of ${of} that the receiver takes`;
    const message = `transaction ${this.#txn.transaction} has ${what}`;
    return new WireError("transaction", 0, "too-large", message, {
      hint: "raise recv's --max-transaction",
    });
  }
}
