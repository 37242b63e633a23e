import { WireError } from "../errors.ts";

/**
 * Decodes an XBZRLE difference onto a page, in place.
 *
 * Wire shape: runs of `ULEB128 unchanged bytes, ULEB128 n, n new bytes`; a trailing unchanged run
 * is left out. Each length is one or two bytes, as a page is at most 16 KiB.
 *
 * @param source Holds the difference at `[at, at + lengthBytes)`; only read.
 * @param page The page's old content, which becomes the new one. Undefined after an error.
 * @param streamOffset Of `source[at]`, for errors.
 * @throws {WireError} `bad-length` if the difference goes beyond the page, or ends too early.
 * @see QEMU migration/xbzrle.c, xbzrle_decode_buffer()
 */
export function decodeXbzrle(
  source: Uint8Array,
  at: number,
  lengthBytes: number,
  page: Uint8Array,
  streamOffset: number,
): void {
  const end = at + lengthBytes;
  const start = at;
  let to = 0;
  const fail = (what: string): never => {
    throw new WireError("migration", streamOffset + (at - start), "bad-length", `XBZRLE ${what}`);
  };
  const length = (): number => {
    if (at >= end) fail("ends inside a length");
    const low = source[at++];
    if (low < 0x80) return low;
    if (at >= end) fail("ends inside a length");
    const high = source[at++];
    if (high >= 0x80) fail("has a length of more than two bytes");
    return (low & 0x7f) | (high << 7);
  };
  while (at < end) {
    to += length();
    if (to > page.length) fail(`skips to byte ${to} of a ${page.length}-byte page`);
    const fresh = length();
    if (fresh === 0) fail("has an empty run");
    if (at + fresh > end) fail("ends inside a run");
    if (to + fresh > page.length) {
      fail(`writes to byte ${to + fresh} of a ${page.length}-byte page`);
    }
    // Making a view costs as much as copying some dozen bytes by hand.
    if (fresh > 48) {
      page.set(source.subarray(at, at + fresh), to);
      at += fresh;
      to += fresh;
    } else {
      for (const stop = at + fresh; at < stop;) page[to++] = source[at++];
    }
  }
}

/** The largest page whose differences have lengths of two bytes. */
export const MAX_XBZRLE_PAGE_BYTES = 16 * 1024;

/**
 * Encodes a page as its difference to another, which becomes it. See {@link decodeXbzrle} for the
 * shape; runs begin and end at the first and last byte that differ, although the comparison is by
 * words.
 *
 * The equal parts, most of a page, are skipped two words at a time, as doubles: this is the only
 * fast load of eight bytes here (0.3 µs a page, against 0.5 µs by words and 2.4 µs by bigints). A
 * NaN never equals itself: then the words decide. Zeros are equal whatever their sign, so for them
 * the word with the sign is compared too.
 *
 * @param fresh The new content, from `at` on; need not be aligned.
 * @param old Its last content, `old[wordAt, wordAt + pageBytes / 4)` in the machine's own (little)
 *   byte order, `wordAt` even; overwritten with the new content, whatever is returned.
 * @param oldPairs The same memory, as doubles.
 * @param out Receives the difference.
 * @param limit Bytes of difference at the most.
 * @returns The difference's length; 0 if the pages are equal; -1 if it has more than `limit` bytes.
 */
export function encodeXbzrle(
  fresh: DataView,
  at: number,
  old: Uint32Array,
  oldPairs: Float64Array,
  wordAt: number,
  pageBytes: number,
  out: Uint8Array,
  limit: number,
): number {
  const words = pageBytes >>> 2;
  let to = 0;
  /** How many of the page's bytes the difference covers so far. */
  let done = 0;
  let i = 0;
  for (;;) {
    let word = 0;
    while (i < words) {
      if ((i & 1) === 0) {
        while (i < words) {
          const pair = fresh.getFloat64(at + 4 * i, true);
          if (pair !== oldPairs[(wordAt + i) >>> 1]) break;
          if (pair === 0 && fresh.getUint32(at + 4 * i + 4, true) !== old[wordAt + i + 1]) break;
          i += 2;
        }
        if (i === words) break;
      }
      word = fresh.getUint32(at + 4 * i, true);
      if (word !== old[wordAt + i]) break;
      i++;
    }
    if (i === words) return to;
    const first = word ^ old[wordAt + i];
    const begin = 4 * i + ((31 - Math.clz32(first & -first)) >>> 3);
    let last = 0;
    do {
      last = word ^ old[wordAt + i];
      old[wordAt + i] = word;
      if (++i === words) break;
      word = fresh.getUint32(at + 4 * i, true);
    } while (word !== old[wordAt + i]);
    const end = 4 * i - (Math.clz32(last) >>> 3);
    const runBytes = end - begin;
    if (to + 4 + runBytes > limit) break;
    to = putLength(out, to, begin - done);
    to = putLength(out, to, runBytes);
    for (let from = at + begin, stop = at + end; from < stop;) out[to++] = fresh.getUint8(from++);
    done = end;
  }
  for (; i < words; i++) old[wordAt + i] = fresh.getUint32(at + 4 * i, true);
  return -1;
}

function putLength(out: Uint8Array, at: number, length: number): number {
  if (length < 0x80) {
    out[at] = length;
    return at + 1;
  }
  out[at] = (length & 0x7f) | 0x80;
  out[at + 1] = length >>> 7;
  return at + 2;
}
