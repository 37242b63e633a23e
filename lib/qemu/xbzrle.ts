import { WireError } from "../errors.ts";

/**
 * Decodes an XBZRLE difference onto a page, in place.
 *
 * Wire shape: runs of `ULEB128 unchanged bytes, ULEB128 n, n new bytes`; a trailing unchanged run
 * is left out. Each length is one or two bytes, as a page is at most 16 KiB.
 *
 * @param source Holds the difference at `[at, at + lengthBytes)`; only read.
 * @param page Its last content; becomes the new one. Undefined content after a throw.
 * @param streamOffset Of `source[at]`, for errors.
 * @throws {WireError} `bad-length` if the difference runs out of the page or of itself.
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
    page.set(source.subarray(at, at + fresh), to);
    at += fresh;
    to += fresh;
  }
}
