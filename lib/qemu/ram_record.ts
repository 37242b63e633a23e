/**
 * A record of a page in a `ram` section.
 *
 * Ownership: each maker of records (the parser, and the code that holds records back) has one
 * record, and fills it anew each time, so that a page costs no allocation. A visitor may use record
 * and `bytes` during the call only, and changes neither.
 *
 * The content is never copied into the record. It is at `bytes[at, at + lengthBytes)`, at the
 * record's end, and depends on `kind`.
 */
export interface RamRecord {
  /**
   * `page`: the content is the whole page. `fill`: one byte, nearly always 0, which all bytes of
   * the page equal. `xbzrle`: the XBZRLE difference to the page's former content.
   */
  readonly kind: "page" | "fill" | "xbzrle";
  /** The page's RAM block: an index in the stream's list of blocks. */
  readonly block: number;
  /** The page's offset in the block, in bytes. */
  readonly pageOffset: number;
  /** Whether the header names the block; later records may refer to that name. */
  readonly named: boolean;
  /** Stream offset of the header's first byte. */
  readonly offset: number;
  /** Stream offset one past the content. */
  readonly endOffset: number;
  /** The buffer with the content, which belongs to the parser's caller. */
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly lengthBytes: number;
}

/** A record as its owner fills it. */
export type MutableRamRecord = { -readonly [K in keyof RamRecord]: RamRecord[K] };

const NOTHING = new Uint8Array(0);

/** Makes a record to be filled. All are made here, so that they have the same shape in memory. */
export function blankRamRecord(): MutableRamRecord {
  return {
    kind: "page",
    block: 0,
    pageOffset: 0,
    named: false,
    offset: 0,
    endOffset: 0,
    bytes: NOTHING,
    at: 0,
    lengthBytes: 0,
  };
}
