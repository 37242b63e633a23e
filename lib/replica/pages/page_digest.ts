import { createXXHash128 } from "hash-wasm";
import type { RamBlock } from "../../qemu/wire.ts";
import { DIGEST_BYTES, MAX_CONTROL_BYTES } from "../../txn/wire.ts";
import type { RamImage } from "./ram_image.ts";

/** Computes the 128-bit digest of a page; the result is valid until the next call. */
export type PageDigest = (page: Uint8Array) => Uint8Array;

/**
 * Makes a page digest: XXH128 under a random seed.
 *
 * A page counts as unchanged if its digest is that of the replica's page. The seed is chosen anew
 * for every session, so that nobody can prepare two pages with the same digest.
 */
export async function createPageDigest(seedLow: number, seedHigh: number): Promise<PageDigest> {
  const hasher = await createXXHash128(seedLow, seedHigh);
  return (page) => {
    hasher.init();
    hasher.update(page);
    return hasher.digest("binary");
  };
}

/**
 * What the sender knows of the replica's pages: 16 bytes a page, allocated in leaves.
 *
 * A page without an entry is zeros: the receiver sends the digests of all others.
 */
export class DigestTable {
  readonly #leaves = new Map<string, Map<number, Uint32Array>>();

  /** Whether this is the page's digest. */
  matches(block: string, page: number, digest: Uint8Array): boolean {
    const leaf = this.#leaves.get(block)?.get(page >>> 12);
    if (leaf === undefined) return false;
    const at = (page & 0xfff) * 4;
    const words = wordsOf(digest);
    return leaf[at] === words[0] && leaf[at + 1] === words[1] && leaf[at + 2] === words[2] &&
      leaf[at + 3] === words[3];
  }

  isZero(block: string, page: number): boolean {
    const leaf = this.#leaves.get(block)?.get(page >>> 12);
    if (leaf === undefined) return true;
    const at = (page & 0xfff) * 4;
    return (leaf[at] | leaf[at + 1] | leaf[at + 2] | leaf[at + 3]) === 0;
  }

  set(block: string, page: number, digest: Uint8Array): void {
    this.#leaf(block, page).set(wordsOf(digest), (page & 0xfff) * 4);
  }

  setZero(block: string, page: number): void {
    const leaf = this.#leaves.get(block)?.get(page >>> 12);
    leaf?.fill(0, (page & 0xfff) * 4, (page & 0xfff) * 4 + 4);
  }

  /** Makes a page match nothing. */
  forget(block: string, page: number): void {
    this.#leaf(block, page).fill(0xffffffff, (page & 0xfff) * 4, (page & 0xfff) * 4 + 4);
  }

  #leaf(block: string, page: number): Uint32Array {
    let leaves = this.#leaves.get(block);
    if (leaves === undefined) this.#leaves.set(block, leaves = new Map());
    let leaf = leaves.get(page >>> 12);
    if (leaf === undefined) leaves.set(page >>> 12, leaf = new Uint32Array(4 * 4096));
    return leaf;
  }
}

const scratch = new Uint8Array(DIGEST_BYTES);
const scratchWords = new Uint32Array(scratch.buffer);

function wordsOf(digest: Uint8Array): Uint32Array {
  scratch.set(digest);
  return scratchWords;
}

/**
 * The digests of a replica's pages as DIGEST payloads: each block's size in pages first, then runs
 * of pages that are not zeros.
 *
 * @yields Payloads of at most MAX_CONTROL_BYTES, each owned by the reader.
 */
export function* digestPayloads(image: RamImage, digest: PageDigest): Generator<Uint8Array> {
  const encoder = new TextEncoder();
  const buffer = new Uint8Array(MAX_CONTROL_BYTES);
  const view = new DataView(buffer.buffer);
  let at = 0;
  const header = (block: RamBlock, page: number, count: number) => {
    const name = encoder.encode(block.name);
    buffer[at] = name.length;
    buffer.set(name, at + 1);
    at += 1 + name.length;
    view.setUint32(at, Math.floor(page / 0x1_0000_0000));
    view.setUint32(at + 4, page % 0x1_0000_0000);
    view.setUint32(at + 8, count);
    at += 12;
  };
  for (let block = 0; block < image.blocks.length; block++) {
    const info = image.blocks[block];
    const pages = info.lengthBytes / image.pageBytes;
    if (at + 300 > buffer.length) {
      yield buffer.slice(0, at);
      at = 0;
    }
    header(info, pages, 0);
    let page = image.nextPage(block, 0);
    while (page < pages) {
      if (at + 300 + DIGEST_BYTES > buffer.length) {
        yield buffer.slice(0, at);
        at = 0;
      }
      const countAt = at + 1 + encoder.encode(info.name).length + 8;
      header(info, page, 0);
      let count = 0;
      for (;;) {
        const content = image.page(block, page);
        if (content === undefined || at + DIGEST_BYTES > buffer.length) break;
        buffer.set(digest(content), at);
        at += DIGEST_BYTES;
        count++;
        if (++page === pages) break;
      }
      view.setUint32(countAt, count);
      if (page < pages) page = image.nextPage(block, page);
    }
  }
  if (at > 0) yield buffer.slice(0, at);
}
