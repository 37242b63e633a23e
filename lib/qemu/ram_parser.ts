import { WireError, type WireFault } from "../errors.ts";
import { blankRamRecord } from "./ram_record.ts";
import type { RamVisitor } from "./stream_events.ts";
import { LIMITS, nameOf, RAM_SAVE_FLAG, type RamBlock } from "./wire.ts";

/** Returned in place of a position when the bytes end inside a record. */
export const NEED_MORE = -1;

/** The context on which RAM records depend. */
export interface RamContext {
  readonly pageBytes: number;
  /** From MEM_SIZE; empty before it. */
  readonly blocks: readonly RamBlock[];
  /** Index of the block that CONTINUE refers to, or -1. */
  readonly lastBlock: number;
  /** `x-ignore-shared`: MEM_SIZE has an address behind every block. */
  readonly addressed: boolean;
  /** POSTCOPY_ADVISE has passed: MEM_SIZE has a page size behind every block of huge pages. */
  readonly postcopyAdvised: boolean;
}

/** A stream's context before its block list. */
export function emptyContext(pageBytes: number, addressed: boolean): RamContext {
  return { pageBytes, blocks: [], lastBlock: -1, addressed, postcopyAdvised: false };
}

/**
 * Parses the payload of `ram` sections: records up to EOS.
 *
 * Wire shape of a record, big-endian: `u64` block offset | flags; unless CONTINUE is set (or the
 * record has no page) `u8` n and n bytes of block name; then the content that the flag implies. One
 * instance lives as long as the stream, since CONTINUE may refer to an earlier section's block.
 *
 * @see QEMU migration/ram.c, save_page_header(), ram_load_precopy()
 */
export class RamParser {
  readonly #pageBytes: number;
  readonly #addressed: boolean;
  readonly #postcopyAdvised: boolean;
  readonly #indexOf = new Map<string, number>();
  /** The record for visitors, filled anew for each page. */
  readonly #record = blankRamRecord();
  #blocks: readonly RamBlock[];
  #lastBlock: number;

  constructor(context: RamContext) {
    this.#pageBytes = context.pageBytes;
    this.#addressed = context.addressed;
    this.#postcopyAdvised = context.postcopyAdvised;
    this.#blocks = context.blocks;
    this.#lastBlock = context.lastBlock;
    this.#index();
  }

  get context(): RamContext {
    return {
      pageBytes: this.#pageBytes,
      blocks: this.#blocks,
      lastBlock: this.#lastBlock,
      addressed: this.#addressed,
      postcopyAdvised: this.#postcopyAdvised,
    };
  }

  /** True once EOS has been passed by the last call of {@link parse}. */
  ended = false;
  /** The list in the last call of {@link parse}, if there was MEM_SIZE. */
  announced: readonly RamBlock[] | undefined;

  /**
   * Parses records from `bytes[at, end)` until EOS, a MEM_SIZE list, or the bytes run out.
   *
   * @param base Stream offset of `bytes[0]`.
   * @returns One past the last whole record.
   */
  parse(bytes: Uint8Array, at: number, end: number, base: number, visitor: RamVisitor): number {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const pageBytes = this.#pageBytes;
    const flagMask = pageBytes - 1;
    const record = this.#record;
    record.bytes = bytes;
    this.ended = false;
    this.announced = undefined;
    while (end - at >= 8) {
      const low = view.getUint32(at + 4);
      const flags = low & flagMask;
      const pageOffset = view.getUint32(at) * 0x1_0000_0000 + (low - flags);
      const kind = flags & ~RAM_SAVE_FLAG.CONTINUE;
      let body = at + 8;
      if (kind === RAM_SAVE_FLAG.EOS) {
        if (pageOffset !== 0) {
          fail(base + at, "bad-value", `EOS with offset ${u64Text(view, at, pageBytes)}`);
        }
        this.ended = true;
        return body;
      }
      if (kind === RAM_SAVE_FLAG.MEM_SIZE) {
        const next = this.#memSize(bytes, view, body, end, base, pageOffset);
        return next === NEED_MORE ? at : next;
      }
      if (kind === RAM_SAVE_FLAG.HOOK || kind === RAM_SAVE_FLAG.MULTIFD_FLUSH) {
        visitor.mark(kind, base + at);
        at = body;
        continue;
      }
      const named = (flags & RAM_SAVE_FLAG.CONTINUE) === 0;
      let block = this.#lastBlock;
      if (named) {
        if (body >= end) return at;
        const nameEnd = body + 1 + bytes[body];
        if (nameEnd > end) return at;
        block = this.#blockNamed(bytes, body + 1, nameEnd, base);
        body = nameEnd;
      } else if (block < 0) {
        fail(base + at, "bad-order", "a RAM record continues a block before any was named");
      }
      if (pageOffset + pageBytes > this.#blocks[block].lengthBytes) {
        const { name, lengthBytes } = this.#blocks[block];
        const found = u64Text(view, at, pageBytes);
        fail(
          base + at,
          "bad-value",
          `a RAM record at ${found} lies outside block ${name} of ${lengthBytes} bytes`,
        );
      }
      let lengthBytes: number;
      if (kind === RAM_SAVE_FLAG.PAGE) {
        record.kind = "page";
        lengthBytes = pageBytes;
      } else if (kind === RAM_SAVE_FLAG.ZERO) {
        record.kind = "fill";
        lengthBytes = 1;
      } else if (kind === RAM_SAVE_FLAG.XBZRLE) {
        if (end - body < 3) return at;
        if (bytes[body] !== 0x01) {
          fail(base + body, "unsupported", `XBZRLE with encoding ${bytes[body]}, not 1`);
        }
        record.kind = "xbzrle";
        lengthBytes = view.getUint16(body + 1);
        if (lengthBytes > pageBytes) {
          fail(base + body + 1, "bad-length", `XBZRLE of ${lengthBytes} bytes for a page`);
        }
        body += 3;
      } else {
        fail(
          base + at,
          "unsupported",
          `a RAM record with flags 0x${flags.toString(16)} (${nameOf(RAM_SAVE_FLAG, kind)})`,
          "switch off the migration capabilities beyond xbzrle, return-path and x-colo",
        );
      }
      const next = body + lengthBytes;
      if (next > end) return at;
      record.block = block;
      record.pageOffset = pageOffset;
      record.named = named;
      record.offset = base + at;
      record.endOffset = base + next;
      record.at = body;
      record.lengthBytes = lengthBytes;
      visitor.page(record);
      this.#lastBlock = block;
      at = next;
    }
    return at;
  }

  /**
   * The block list. Per block: `u8` n, name, `u64` length; `u64` page size if it is huge and
   * postcopy was advised; `u64` address if shared RAM is ignored. A page size can be distinguished
   * from what else may follow: no name is empty, and no record has all flags clear.
   */
  #memSize(
    bytes: Uint8Array,
    view: DataView,
    at: number,
    end: number,
    base: number,
    totalBytes: number,
  ): number {
    if (totalBytes > LIMITS.ramBytes) {
      fail(
        base + at - 8,
        "too-large",
        `the stream announces ${u64Text(view, at - 8, this.#pageBytes)} bytes of RAM; at most ` +
          `${LIMITS.ramBytes} are accepted`,
      );
    }
    if (totalBytes === 0) fail(base + at - 8, "bad-length", "the stream announces no RAM");
    if (this.#blocks.length > 0) {
      fail(base + at - 8, "bad-order", "a second list of RAM blocks in one stream");
    }
    const blocks: RamBlock[] = [];
    const names = new Set<string>();
    let left = totalBytes;
    while (left > 0) {
      if (blocks.length === LIMITS.blocks) {
        fail(base + at, "too-large", `more than ${LIMITS.blocks} RAM blocks`);
      }
      if (at >= end) return NEED_MORE;
      const nameEnd = at + 1 + bytes[at];
      if (nameEnd === at + 1) fail(base + at, "bad-length", "a RAM block without a name");
      if (end - nameEnd < 8) return NEED_MORE;
      const name = ascii(bytes, at + 1, nameEnd, base);
      if (names.has(name)) fail(base + at, "bad-value", `RAM block ${name} is listed twice`);
      const lengthBytes = view.getUint32(nameEnd) * 0x1_0000_0000 + view.getUint32(nameEnd + 4);
      if (lengthBytes === 0 || lengthBytes > left || lengthBytes % this.#pageBytes !== 0) {
        fail(
          base + nameEnd,
          "bad-length",
          `RAM block ${name} of ${u64Text(view, nameEnd)} bytes, with ${left} of the announced ` +
            "total left",
        );
      }
      if (lengthBytes / this.#pageBytes > LIMITS.blockPages) {
        fail(base + nameEnd, "too-large", `RAM block ${name} of over ${LIMITS.blockPages} pages`);
      }
      at = nameEnd + 8;
      left -= lengthBytes;
      if (this.#addressed) {
        if (end - at < 8) return NEED_MORE;
        at += 8;
      } else if (this.#postcopyAdvised) {
        if (end - at < 8) return NEED_MORE;
        const low = view.getUint32(at + 4);
        if (bytes[at] === 0 && (low & (this.#pageBytes - 1)) === 0) {
          const hugeBytes = view.getUint32(at) * 0x1_0000_0000 + low;
          if (hugeBytes === 0 || !Number.isInteger(Math.log2(hugeBytes))) {
            const found = u64Text(view, at);
            fail(base + at, "bad-value", `RAM block ${name} with pages of ${found} bytes`);
          }
          at += 8;
        }
      }
      names.add(name);
      blocks.push({ name, lengthBytes });
    }
    this.#blocks = blocks;
    this.#lastBlock = -1;
    this.#index();
    this.announced = blocks;
    return at;
  }

  #index(): void {
    this.#indexOf.clear();
    this.#blocks.forEach((block, index) => this.#indexOf.set(block.name, index));
  }

  #blockNamed(bytes: Uint8Array, at: number, end: number, base: number): number {
    const name = ascii(bytes, at, end, base);
    const block = this.#indexOf.get(name);
    if (block === undefined) {
      fail(base + at, "bad-value", `a RAM record for block ${JSON.stringify(name)}, never listed`);
    }
    return block;
  }
}

/** Decodes a name of printable ASCII, the only kind QEMU makes. */
export function ascii(bytes: Uint8Array, at: number, end: number, base: number): string {
  let text = "";
  for (let i = at; i < end; i++) {
    if (bytes[i] < 0x20 || bytes[i] > 0x7e) {
      fail(base + i, "bad-value", `a name with byte 0x${bytes[i].toString(16)}`);
    }
    text += String.fromCharCode(bytes[i]);
  }
  return text;
}

/** Throws the {@link WireError} for a fault at `offset` of a migration stream. */
export function fail(offset: number, fault: WireFault, message: string, hint?: string): never {
  throw new WireError("migration", offset, fault, message, { hint });
}

/**
 * A u64 from the wire as text; a number may have lost digits.
 *
 * @param unit A power of 2: the bits below are flags, and left out.
 */
function u64Text(view: DataView, at: number, unit = 1): string {
  const value = view.getBigUint64(at);
  return `${value - value % BigInt(unit)}`;
}
