/**
 * What a `ram` section says of one page.
 *
 * Ownership: whoever makes records has one of them and fills it anew each time, so that a page on
 * its way costs no allocation; the parser has one, and so has whoever puts records off. A visitor
 * may use record and `bytes` during the call only, and changes neither.
 *
 * The content is never copied into the record. It stands at `bytes[at, at + lengthBytes)`, at the
 * record's very end, and is what `kind` says.
 */
export interface RamRecord {
  /**
   * `page`: the content is the whole page. `fill`: it is one byte, nearly always 0, that all of the
   * page's are equal to. `xbzrle`: it is the XBZRLE difference to what the page held before.
   */
  readonly kind: "page" | "fill" | "xbzrle";
  /** The page's RAM block: an index in the stream's list of blocks. */
  readonly block: number;
  /** Bytes from the block's first to the page's. */
  readonly pageOffset: number;
  /** Whether the header names the block; records behind it may rely on that. */
  readonly named: boolean;
  /** Stream offset of the header's first byte. */
  readonly offset: number;
  /** Stream offset one past the content. */
  readonly endOffset: number;
  /** The buffer that the content stands in: the parser's caller's. */
  readonly bytes: Uint8Array;
  readonly at: number;
  readonly lengthBytes: number;
}

/** A record as its owner fills it. */
export type MutableRamRecord = { -readonly [K in keyof RamRecord]: RamRecord[K] };

const NOTHING = new Uint8Array(0);

/** Makes a record to be filled. One place for all of them gives them one shape in memory. */
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
