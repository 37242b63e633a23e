import { WireError } from "../../errors.ts";
import { foreignText } from "../../foreign_text.ts";
import { LIMITS, type RamBlock } from "../../qemu/wire.ts";
import { DIGEST_BYTES } from "../../txn/wire.ts";
import { refuse } from "../../txn/wire_fault.ts";
import { DigestTable } from "./page_digest.ts";

/**
 * Takes what a receiver tells of its replica's pages, and keeps it only as far as it is of the sender's
 * own RAM: no more than the digests of that RAM's pages, whatever the receiver says.
 */
export class DigestAnswer {
  readonly #own: readonly RamBlock[];
  readonly #pageBytes: number;
  #table: DigestTable | undefined = new DigestTable();
  /** Blocks that have been announced. */
  readonly #names = new Set<string>();
  /** The last one of them, and where its next run may begin. */
  #last = { name: "", pages: 0, next: 0 };

  /** @param own The RAM blocks of the sender's VM. */
  constructor(own: readonly RamBlock[], pageBytes: number) {
    this.#own = own;
    this.#pageBytes = pageBytes;
  }

  /**
   * The digests of all pages, once the answer is whole.
   *
   * @returns Undefined where the replica has other blocks: nothing of it is of use.
   */
  get table(): DigestTable | undefined {
    return this.#names.size === this.#own.length ? this.#table : undefined;
  }

  /**
   * Takes one DIGEST payload: any number of `u8 n, n bytes block, u64 first page, u32 count,
   * count × 16 bytes`. A count of 0 announces a block of so many pages, whose runs follow.
   *
   * @throws {WireError}
   */
  receive(payload: Uint8Array): void {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    for (let at = 0; at < payload.length;) {
      need(payload, at, 1 + payload[at] + 12);
      if (payload[at] === 0) refuse(at, "bad-value", "a DIGEST for a block without a name");
      const nameEnd = at + 1 + payload[at];
      const name = String.fromCharCode(...payload.subarray(at + 1, nameEnd));
      if (view.getUint32(nameEnd) >= 2 ** 21) {
        const page = view.getBigUint64(nameEnd);
        refuse(at, "bad-value", `a DIGEST for page ${page}, which is not below 2^53`);
      }
      const first = view.getUint32(nameEnd) * 0x1_0000_0000 + view.getUint32(nameEnd + 4);
      const count = view.getUint32(nameEnd + 8);
      const body = nameEnd + 12;
      if (count === 0) this.#announce(name, first, at);
      else {
        need(payload, body, count * DIGEST_BYTES);
        this.#take(name, first, payload.subarray(body, body + count * DIGEST_BYTES), at);
      }
      at = body + count * DIGEST_BYTES;
    }
  }

  #announce(name: string, pages: number, at: number): void {
    const shown = foreignText(name);
    if (this.#names.has(name)) {
      refuse(at, "bad-value", `digests with block "${shown}" announced twice`);
    }
    if (this.#names.size === LIMITS.blocks || pages > LIMITS.blockPages) {
      refuse(at, "too-large", `digests of block "${shown}" of ${pages} pages`);
    }
    const own = this.#own[this.#names.size];
    if (own?.name !== name || own.lengthBytes !== pages * this.#pageBytes) this.#table = undefined;
    this.#names.add(name);
    this.#last = { name, pages, next: 0 };
  }

  #take(name: string, first: number, digests: Uint8Array, at: number): void {
    const { name: last, pages, next } = this.#last;
    const end = first + digests.length / DIGEST_BYTES;
    if (name !== last || first < next || end > pages) {
      const what = `digests of pages ${first} to ${end} of block "${foreignText(name)}"`;
      throw new WireError(
        "transaction",
        at,
        "bad-value",
        `${what}, awaited were pages from ${next} to ${pages} of block "${foreignText(last)}"`,
      );
    }
    this.#last.next = end;
    for (let page = first; page < end; page++) {
      const from = (page - first) * DIGEST_BYTES;
      this.#table?.set(name, page, digests.subarray(from, from + DIGEST_BYTES));
    }
  }
}

function need(payload: Uint8Array, at: number, bytes: number): void {
  if (payload.length - at >= bytes) return;
  refuse(at, "bad-length", "a DIGEST frame ends inside a run");
}
