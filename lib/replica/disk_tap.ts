import { type DiskMode, MAX_EVENT_DATA_BYTES, type TapEvent } from "./tap_events.ts";

/** Where a disk's bytes are. Calls are synchronous and may throw. */
export interface DiskStore {
  readonly sizeBytes: number;
  /** Fills `into` with what lies at `offset`. */
  read(into: Uint8Array<ArrayBuffer>, offset: number): void;
  write(offset: number, data: Uint8Array): void;
  zero(offset: number, lengthBytes: number): void;
}

/** How the overlay is divided: what guests write in. */
const OVERLAY_PAGE_BYTES = 4096;

/** All pages of zeros are this one: a guest may trim its whole disk at a blow. */
const ZERO_PAGE = new Uint8Array(OVERLAY_PAGE_BYTES);
/** What an event, or a page of zeros, takes beside its data, roughly. */
const ENTRY_BYTES = 128;

interface OverlayPage {
  bytes: Uint8Array;
  /** The transaction that ends the epoch of its last write; Infinity while that is open. */
  epoch: number;
}

/**
 * One protected disk at the primary.
 *
 * *replicated*: every write goes to the primary's own copy at once, and is recorded, to travel
 * with its epoch's transaction. *shared*: while the tap holds, writes stay in an overlay in
 * memory, which serves reads, and reach the shared image when their epoch is released.
 *
 * Writes are answered at once in both modes: a checkpoint drains the disk, and a write that waited
 * for its commit would wait for ever. What the guest says because of a write is held instead.
 */
export class DiskTap {
  readonly name: string;
  readonly mode: DiskMode;
  readonly #store: DiskStore;
  #isRecording = false;
  /** Writes behind this offset are not recorded: a resync will get there. */
  #recordBelow = Infinity;
  #recorded: TapEvent[] = [];
  #recordedBytes = 0;
  readonly #overlay = new Map<number, OverlayPage>();
  #overlayBytes = 0;
  /** Of events in {@link #open} and {@link #closed}. */
  #unwrittenBytes = 0;
  /** Shared mode: writes of the open epoch, and of closed ones by transaction. */
  #open: TapEvent[] = [];
  #closed: { readonly transaction: number; readonly events: TapEvent[] }[] = [];

  /** Called when a write is recorded, which may be reason enough to synchronize. */
  onRecorded: () => void = () => {};

  constructor(name: string, mode: DiskMode, store: DiskStore) {
    this.name = name;
    this.mode = mode;
    this.#store = store;
  }

  get sizeBytes(): number {
    return this.#store.sizeBytes;
  }
  /** True while a secondary takes part in this disk. */
  get isProtected(): boolean {
    return this.#isRecording;
  }
  /** True while reads differ from what the image holds. */
  get hasOverlay(): boolean {
    return this.#overlay.size > 0;
  }
  /** Bytes of memory in recorded writes and the overlay. */
  get heldBytes(): number {
    return Math.max(this.#recordedBytes, this.#unwrittenBytes) + this.#overlayBytes;
  }
  /** Writes that the shared image does not have yet. */
  get unreleasedWrites(): number {
    return this.#open.length + this.#closed.reduce((sum, { events }) => sum + events.length, 0);
  }

  /** True while writes wait that the image should have had by now, because it refused them. */
  get isStuck(): boolean {
    return !this.#isRecording && this.#hasUnwritten;
  }
  get #hasUnwritten(): boolean {
    return this.#open.length + this.#closed.length > 0;
  }

  /**
   * A secondary listens: it is told of the disk, and replicated writes are recorded. What a shared
   * image has refused until now travels in the first transaction, and is written with it.
   */
  start(): void {
    const unwritten = [...this.#closed.flatMap(({ events }) => events), ...this.#open];
    this.#isRecording = this.mode === "replicated" || unwritten.length > 0;
    this.takeEvents();
    this.#recorded.push({
      kind: "disk",
      tap: this.name,
      sizeBytes: this.sizeBytes,
      mode: this.mode,
    });
    this.#closed = [];
    this.#open = [];
    this.#unwrittenBytes = 0;
    for (const page of this.#overlay.values()) page.epoch = Infinity;
    for (const event of unwritten) this.#record(event);
  }

  /**
   * The secondary has the VM's state: from here on the shared image does not get ahead of it.
   * Until then there is nothing that it could be ahead of.
   */
  hold(): void {
    this.#isRecording = true;
  }

  /**
   * From now on only what the guest writes in front of this offset is recorded: what is behind it
   * will be read from the image, and sent, before the secondary's copy is said to be whole.
   */
  recordBelow(offset: number): void {
    this.#recordBelow = offset;
  }

  /** Reads as the guest sees the disk. */
  read(bytes: Uint8Array<ArrayBuffer>, offset: number): void {
    this.#store.read(bytes, offset);
    if (this.#overlay.size === 0) return;
    const end = offset + bytes.length;
    for (let page = pageOf(offset); page * OVERLAY_PAGE_BYTES < end; page++) {
      const overlay = this.#overlay.get(page);
      if (overlay === undefined) continue;
      const from = Math.max(offset, page * OVERLAY_PAGE_BYTES);
      const to = Math.min(end, (page + 1) * OVERLAY_PAGE_BYTES);
      const within = from - page * OVERLAY_PAGE_BYTES;
      bytes.set(overlay.bytes.subarray(within, within + to - from), from - offset);
    }
  }

  /** Writes. @param data May be reused on return. */
  write(offset: number, data: Uint8Array): void {
    const held = this.#isHeld();
    if (!held) this.#stored(offset, data.length, () => this.#store.write(offset, data));
    if (!this.#isRecording) return;
    if (held) {
      this.#overlayWrite(offset, data.length, data);
    }
    const end = Math.min(data.length, this.#recordedPart(offset));
    for (let at = 0; at < end; at += MAX_EVENT_DATA_BYTES) {
      const part = data.slice(at, Math.min(end, at + MAX_EVENT_DATA_BYTES));
      this.#record({ kind: "write", tap: this.name, offset: offset + at, data: part });
    }
  }

  /**
   * Whether a write goes into the overlay. Where the image has refused earlier ones, those come
   * first, or the guest is told of its refusal too.
   */
  #isHeld(): boolean {
    if (this.mode === "replicated") return false;
    if (this.#isRecording) return true;
    this.#writeUnwritten();
    return false;
  }

  /** Lets the image change. Where it refuses, what it made of the range is recorded all the same. */
  #stored(offset: number, lengthBytes: number, change: () => void): void {
    try {
      change();
    } catch (error) {
      this.#recordAsIs(offset, lengthBytes);
      throw error;
    }
  }

  #recordAsIs(offset: number, lengthBytes: number): void {
    if (!this.#isRecording) return;
    const end = offset + Math.min(lengthBytes, this.#recordedPart(offset));
    try {
      for (let at = offset; at < end; at += MAX_EVENT_DATA_BYTES) {
        const data = new Uint8Array(Math.min(MAX_EVENT_DATA_BYTES, end - at));
        this.#store.read(data, at);
        this.#record({ kind: "write", tap: this.name, offset: at, data });
      }
    } catch {
      // The guest is told of the first failure, and knows nothing of what is there.
    }
  }

  /** Writes zeros, or trims: a trimmed range reads as zeros. */
  zero(offset: number, lengthBytes: number): void {
    const held = this.#isHeld();
    if (!held) this.#stored(offset, lengthBytes, () => this.#store.zero(offset, lengthBytes));
    if (!this.#isRecording) return;
    if (held) {
      this.#overlayWrite(offset, lengthBytes, undefined);
    }
    const recorded = Math.min(lengthBytes, this.#recordedPart(offset));
    if (recorded > 0) this.#record({ kind: "zero", tap: this.name, offset, lengthBytes: recorded });
  }

  /** How many bytes from an offset on are recorded. */
  #recordedPart(offset: number): number {
    return this.mode === "shared" ? Infinity : Math.max(0, this.#recordBelow - offset);
  }

  /** Adds something that is no write of the guest's, such as a part of the first copy. */
  add(event: TapEvent): void {
    this.#recorded.push(event);
    this.#recordedBytes += sizeOf(event);
  }

  /** Takes what was recorded since the last call, in order. */
  takeEvents(): TapEvent[] {
    const recorded = this.#recorded;
    this.#recorded = [];
    this.#recordedBytes = 0;
    return recorded;
  }

  /** The open epoch ends with this transaction. */
  closeEpoch(transaction: number): void {
    if (this.mode !== "shared" || this.#open.length === 0) return;
    this.#closed.push({ transaction, events: this.#open });
    this.#open = [];
    for (const page of this.#overlay.values()) {
      if (page.epoch === Infinity) page.epoch = transaction;
    }
  }

  /**
   * The transaction and all before it are at the secondary: their writes go to the shared image.
   *
   * @throws what the image throws; what was not written stays in the overlay, for another call.
   */
  release(transaction: number): void {
    while (this.#closed.length > 0 && this.#closed[0].transaction <= transaction) {
      this.#writeOut(this.#closed[0].events);
      this.#closed.shift();
    }
    for (const [number, page] of this.#overlay) {
      if (page.epoch > transaction) continue;
      this.#overlay.delete(number);
      this.#overlayBytes -= costOf(page);
    }
  }

  /**
   * The secondary is lost and the VM goes on: everything held goes to the image, in order.
   *
   * @throws what the image throws; the rest stays readable, and comes before any later write.
   */
  passThrough(): void {
    this.#isRecording = false;
    this.takeEvents();
    this.#writeUnwritten();
  }

  /** Tries again to write what the image refused, in order. @throws what the image throws. */
  retry(): void {
    if (this.isStuck) this.#writeUnwritten();
  }

  #writeUnwritten(): void {
    while (this.#closed.length > 0) {
      this.#writeOut(this.#closed[0].events);
      this.#closed.shift();
    }
    this.#writeOut(this.#open);
    this.#overlay.clear();
    this.#overlayBytes = 0;
  }

  /** Writes events out from the front, and forgets each once it is written. */
  #writeOut(events: TapEvent[]): void {
    let done = 0;
    try {
      for (const event of events) {
        if (event.kind === "write") this.#store.write(event.offset, event.data);
        else if (event.kind === "zero") this.#store.zero(event.offset, event.lengthBytes);
        this.#unwrittenBytes -= sizeOf(event);
        done++;
      }
    } finally {
      events.splice(0, done);
    }
  }

  #record(event: TapEvent): void {
    this.#recorded.push(event);
    this.#recordedBytes += sizeOf(event);
    if (this.mode === "shared") {
      this.#open.push(event);
      this.#unwrittenBytes += sizeOf(event);
    }
    this.onRecorded();
  }

  /**
   * Writes into the overlay. @param data Undefined for zeros.
   *
   * @throws what reading from the image throws: then nothing has changed that can be read.
   */
  #overlayWrite(offset: number, lengthBytes: number, data: Uint8Array | undefined): void {
    if (lengthBytes === 0) return;
    const end = offset + lengthBytes;
    const last = pageOf(end - 1);
    // Of the first and the last page a part may stay as it is.
    for (const number of new Set([pageOf(offset), last])) {
      const start = number * OVERLAY_PAGE_BYTES;
      const size = this.#pageSize(number);
      if (this.#overlay.has(number) || offset <= start && end >= start + size) continue;
      const bytes = new Uint8Array(size);
      this.#store.read(bytes, start);
      this.#put(number, bytes);
    }
    for (let number = pageOf(offset); number <= last; number++) {
      const start = number * OVERLAY_PAGE_BYTES;
      const size = this.#pageSize(number);
      const from = Math.max(offset, start);
      const to = Math.min(end, start + size);
      if (data === undefined && to - from === OVERLAY_PAGE_BYTES) {
        this.#put(number, ZERO_PAGE);
        continue;
      }
      let bytes = this.#overlay.get(number)?.bytes;
      if (bytes === undefined || bytes === ZERO_PAGE) bytes = new Uint8Array(size);
      if (data === undefined) bytes.fill(0, from - start, to - start);
      else bytes.set(data.subarray(from - offset, to - offset), from - start);
      this.#put(number, bytes);
    }
  }

  #pageSize(number: number): number {
    return Math.min(OVERLAY_PAGE_BYTES, this.sizeBytes - number * OVERLAY_PAGE_BYTES);
  }

  /** A page of the overlay, as the open epoch has made it. */
  #put(number: number, bytes: Uint8Array): void {
    const page = this.#overlay.get(number);
    if (page === undefined) {
      const added = { bytes, epoch: Infinity };
      this.#overlay.set(number, added);
      this.#overlayBytes += costOf(added);
      return;
    }
    this.#overlayBytes -= costOf(page);
    page.bytes = bytes;
    page.epoch = Infinity;
    this.#overlayBytes += costOf(page);
  }
}

function pageOf(offset: number): number {
  return Math.floor(offset / OVERLAY_PAGE_BYTES);
}

function costOf({ bytes }: OverlayPage): number {
  return ENTRY_BYTES + (bytes === ZERO_PAGE ? 0 : OVERLAY_PAGE_BYTES);
}

function sizeOf(event: TapEvent): number {
  return ENTRY_BYTES + (event.kind === "write" || event.kind === "copy" ? event.data.length : 0);
}
