/** The overlay's page size: guests write in such pages. */
const OVERLAY_PAGE_BYTES = 4096;

/** Shared by all pages of zeros: a guest may trim its whole disk at once. */
const ZERO_PAGE = new Uint8Array(OVERLAY_PAGE_BYTES);
/** About how many bytes a page of zeros takes. */
const ENTRY_BYTES = 128;

/** A write of the guest; of zeros if there is no data. */
export interface Change {
  readonly offset: number;
  readonly lengthBytes: number;
  readonly data?: Uint8Array;
}

/** A page with the image's content. */
export interface EdgePage {
  readonly offset: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

interface OverlayPage {
  bytes: Uint8Array;
  /** The transaction that ends the epoch of its last write; Infinity while that is open. */
  epoch: number;
}

/** The guest's writes that a shared image does not have yet, by pages. */
export class DiskOverlay {
  readonly #pages = new Map<number, OverlayPage>();
  #bytes = 0;

  constructor(readonly sizeBytes: number) {}

  get isEmpty(): boolean {
    return this.#pages.size === 0;
  }
  /** Bytes of memory that the overlay takes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Copies the overlay's pages over data read from the image. */
  layOver(bytes: Uint8Array, offset: number): void {
    if (this.#pages.size === 0) return;
    const end = offset + bytes.length;
    for (let number = pageOf(offset); number * OVERLAY_PAGE_BYTES < end; number++) {
      const page = this.#pages.get(number);
      if (page === undefined) continue;
      const from = Math.max(offset, number * OVERLAY_PAGE_BYTES);
      const to = Math.min(end, (number + 1) * OVERLAY_PAGE_BYTES);
      const within = from - number * OVERLAY_PAGE_BYTES;
      bytes.set(page.bytes.subarray(within, within + to - from), from - offset);
    }
  }

  /**
   * The pages that a change covers only partly, and that are not in the overlay: they have to be
   * read from the image before the change.
   */
  edgesOf({ offset, lengthBytes }: Change): EdgePage[] {
    const edges: EdgePage[] = [];
    if (lengthBytes === 0) return edges;
    const end = offset + lengthBytes;
    for (const number of new Set([pageOf(offset), pageOf(end - 1)])) {
      const start = number * OVERLAY_PAGE_BYTES;
      const size = this.#pageSize(number);
      if (this.#pages.has(number) || offset <= start && end >= start + size) continue;
      edges.push({ offset: start, bytes: new Uint8Array(size) });
    }
    return edges;
  }

  /**
   * Takes a change of the open epoch.
   *
   * @param edges The pages that {@link edgesOf} wanted. If such a page has come into the overlay
   *   meanwhile, the one read is outdated.
   */
  write({ offset, lengthBytes, data }: Change, edges: readonly EdgePage[]): void {
    for (const edge of edges) {
      const number = pageOf(edge.offset);
      if (!this.#pages.has(number)) this.#put(number, edge.bytes);
    }
    if (lengthBytes === 0) return;
    const end = offset + lengthBytes;
    for (let number = pageOf(offset); number <= pageOf(end - 1); number++) {
      const start = number * OVERLAY_PAGE_BYTES;
      const size = this.#pageSize(number);
      const from = Math.max(offset, start);
      const to = Math.min(end, start + size);
      if (data === undefined && to - from === OVERLAY_PAGE_BYTES) {
        this.#put(number, ZERO_PAGE);
        continue;
      }
      let bytes = this.#pages.get(number)?.bytes;
      if (bytes === undefined || bytes === ZERO_PAGE) bytes = new Uint8Array(size);
      if (data === undefined) bytes.fill(0, from - start, to - start);
      else bytes.set(data.subarray(from - offset, to - offset), from - start);
      this.#put(number, bytes);
    }
  }

  /** The open epoch ends with this transaction. */
  closeEpoch(transaction: number): void {
    for (const page of this.#pages.values()) {
      if (page.epoch === Infinity) page.epoch = transaction;
    }
  }

  /** All pages belong to the open epoch. */
  reopen(): void {
    for (const page of this.#pages.values()) page.epoch = Infinity;
  }

  /** The image has the writes of all epochs up to this one. */
  drop(upTo: number): void {
    for (const [number, page] of this.#pages) {
      if (page.epoch > upTo) continue;
      this.#pages.delete(number);
      this.#bytes -= costOf(page);
    }
  }

  #pageSize(number: number): number {
    return Math.min(OVERLAY_PAGE_BYTES, this.sizeBytes - number * OVERLAY_PAGE_BYTES);
  }

  /** Sets a page's content in the open epoch. */
  #put(number: number, bytes: Uint8Array): void {
    const page = this.#pages.get(number);
    if (page === undefined) {
      const added = { bytes, epoch: Infinity };
      this.#pages.set(number, added);
      this.#bytes += costOf(added);
      return;
    }
    this.#bytes -= costOf(page);
    page.bytes = bytes;
    page.epoch = Infinity;
    this.#bytes += costOf(page);
  }
}

function pageOf(offset: number): number {
  return Math.floor(offset / OVERLAY_PAGE_BYTES);
}

function costOf({ bytes }: OverlayPage): number {
  return ENTRY_BYTES + (bytes === ZERO_PAGE ? 0 : OVERLAY_PAGE_BYTES);
}
