import { type Change, DiskOverlay, type EdgePage } from "./disk_overlay.ts";
import { type Done, raise } from "./done.ts";
import { MAX_EVENT_DATA_BYTES } from "../../txn/wire.ts";
import type { DiskMode, TapEvent } from "./tap_events.ts";

/**
 * Where a disk's bytes are. Calls are done at once or later, and take effect in the order in which
 * they were made: changes are done in that order, and a read sees those that came before it. What a
 * call is given stays in place, and as it is, until it is done.
 */
export interface DiskStore {
  readonly sizeBytes: number;
  /** Fills `into` with what lies at `offset`. */
  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void;
  write(offset: number, data: Uint8Array, done: Done): void;
  zero(offset: number, lengthBytes: number, done: Done): void;
}

/** What an event takes beside its data, roughly. */
const ENTRY_BYTES = 128;

/**
 * One protected disk at the primary.
 *
 * *replicated*: every write goes to the primary's own copy at once, and is recorded, to travel
 * with its epoch's transaction. *shared*: while the tap holds, writes stay in an overlay in
 * memory, which serves reads, and reach the shared image when their epoch is released.
 *
 * No write waits for its commit, in either mode: a checkpoint drains the disk, and a write that
 * waited for its commit would wait for ever. What the guest says because of a write is held instead.
 *
 * A write is done, and recorded, in one moment: that in which the store has done it. The store does
 * changes in order, so what is recorded is in the order of what the image went through. In shared
 * mode that moment comes when the rest of the pages it touches has been read: a later write to the
 * same page may have come before, and is in the overlay then, which the read does not touch.
 */
export class PrimaryDiskTap {
  readonly name: string;
  readonly mode: DiskMode;
  readonly #store: DiskStore;
  #isRecording = false;
  #isHeld = false;
  /** Writes behind this offset are not recorded: a resync will get there. */
  #recordBelow = Infinity;
  #recorded: TapEvent[] = [];
  #recordedBytes = 0;
  readonly #overlay: DiskOverlay;
  /** Of events in {@link #open} and {@link #closed}. */
  #unwrittenBytes = 0;
  /** Shared mode: writes of the open epoch, and of closed ones by transaction. */
  #open: TapEvent[] = [];
  #closed: { readonly transaction: number; readonly events: TapEvent[] }[] = [];
  /** Counts calls of {@link start}: what was begun before it has no say after it. */
  #session = 0;
  /** Held writes are on their way to the shared image. */
  #isWriting = false;
  /** What waits for the end of that. */
  #waiting: (() => void)[] = [];

  /** Called when a write is recorded, which may be reason enough to synchronize. */
  onRecorded: () => void = () => {};

  constructor(name: string, mode: DiskMode, store: DiskStore) {
    this.name = name;
    this.mode = mode;
    this.#store = store;
    this.#overlay = new DiskOverlay(store.sizeBytes);
  }

  get sizeBytes(): number {
    return this.#store.sizeBytes;
  }
  /**
   * Whether a flush is answered without the image's: what the guest says because of it waits until the
   * secondary has what was written; or a shared image has refused writes, which travel with the
   * session's first state.
   */
  get isFlushedOnCredit(): boolean {
    return this.#isHeld || this.mode === "shared" && this.#isRecording;
  }
  /** True while reads differ from what the image holds. */
  get hasOverlay(): boolean {
    return !this.#overlay.isEmpty;
  }
  /** Bytes of memory in recorded writes and the overlay. */
  get heldBytes(): number {
    return Math.max(this.#recordedBytes, this.#unwrittenBytes) + this.#overlay.bytes;
  }
  /** Writes that the shared image does not have yet. */
  get unreleasedWrites(): number {
    return this.#open.length + this.#closed.reduce((sum, { events }) => sum + events.length, 0);
  }

  /** True while held writes are on their way to the shared image. */
  get isWriting(): boolean {
    return this.#isWriting;
  }
  /** True while writes wait that the image should have had by now, because it refused them. */
  get isStuck(): boolean {
    return !this.#isRecording && this.#hasUnwritten && !this.#isWriting;
  }
  get #hasUnwritten(): boolean {
    return this.#open.length + this.#closed.length > 0;
  }

  /**
   * A secondary listens: it is told of the disk, and replicated writes are recorded. What a shared
   * image has refused until now travels in the first transaction, and is written with it.
   */
  start(): void {
    this.#session++;
    this.#isHeld = false;
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
    this.#overlay.reopen();
    for (const event of unwritten) this.#record(event);
  }

  /**
   * The secondary has the VM's state: from here on the shared image does not get ahead of it, and the
   * guest says nothing that it does not know. Until then there is nothing that it could be ahead of.
   */
  hold(): void {
    this.#isRecording = true;
    this.#isHeld = true;
  }

  /**
   * From now on only what the guest writes in front of this offset is recorded: what is behind it
   * will be read from the image, and sent, before the secondary's copy is said to be whole.
   */
  recordBelow(offset: number): void {
    this.#recordBelow = offset;
  }

  /** Reads as the guest sees the disk. */
  read(bytes: Uint8Array<ArrayBuffer>, offset: number, done: Done = raise): void {
    this.#store.read(bytes, offset, (error) => {
      if (error === undefined) this.#overlay.layOver(bytes, offset);
      done(error);
    });
  }

  /** Writes. @param data Stays as it is until it is done. */
  write(offset: number, data: Uint8Array, done: Done = raise): void {
    this.#change({ offset, lengthBytes: data.length, data }, done);
  }

  /** Writes zeros, or trims: a trimmed range reads as zeros. */
  zero(offset: number, lengthBytes: number, done: Done = raise): void {
    this.#change({ offset, lengthBytes }, done);
  }

  #change(change: Change, done: Done): void {
    if (this.mode === "shared") {
      if (this.#isRecording) return this.#hold(change, done);
      // What the image should have by now comes first, or the guest is told of its refusal too.
      if (this.#hasUnwritten) {
        return this.retry((error) =>
          error === undefined ? this.#change(change, done) : done(error)
        );
      }
    }
    this.#storeChange(change, (error) => {
      if (error !== undefined) return this.#recordAsIs(change, () => done(error));
      if (this.#isRecording) this.#recordChange(change);
      done();
    });
  }

  #storeChange({ offset, lengthBytes, data }: Change, done: Done): void {
    if (data === undefined) this.#store.zero(offset, lengthBytes, done);
    else this.#store.write(offset, data, done);
  }

  /** Keeps a change in the overlay, once what it leaves of its first and its last page is known. */
  #hold(change: Change, done: Done): void {
    this.#readEdges(change, (edges, error) => {
      if (error !== undefined) return done(error);
      // The secondary may have been lost meanwhile.
      if (!this.#isRecording) return this.#change(change, done);
      this.#overlay.write(change, edges);
      this.#recordChange(change);
      done();
    });
  }

  #recordChange({ offset, lengthBytes, data }: Change): void {
    const recorded = Math.min(lengthBytes, this.#recordedPart(offset));
    if (recorded <= 0) return;
    if (data === undefined) {
      return this.#record({ kind: "zero", tap: this.name, offset, lengthBytes: recorded });
    }
    for (let at = 0; at < recorded; at += MAX_EVENT_DATA_BYTES) {
      const part = data.slice(at, Math.min(recorded, at + MAX_EVENT_DATA_BYTES));
      this.#record({ kind: "write", tap: this.name, offset: offset + at, data: part });
    }
  }

  /**
   * Records what the image made of a range that it refused to change.
   *
   * @param then Called in any case: the guest is told of the first failure, and knows nothing of what
   *   is there.
   */
  #recordAsIs({ offset, lengthBytes }: Change, then: () => void): void {
    const end = offset + Math.min(lengthBytes, this.#recordedPart(offset));
    const next = (at: number) => {
      if (!this.#isRecording || at >= end) return then();
      const data = new Uint8Array(Math.min(MAX_EVENT_DATA_BYTES, end - at));
      this.#store.read(data, at, (error) => {
        if (error !== undefined) return then();
        if (this.#isRecording) {
          this.#record({ kind: "write", tap: this.name, offset: at, data });
        }
        next(at + data.length);
      });
    };
    next(offset);
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
    this.#overlay.closeEpoch(transaction);
  }

  /**
   * The transaction and all before it are at the secondary: their writes go to the shared image. What
   * it does not take stays in the overlay, for another call.
   */
  release(transaction: number, done: Done = raise): void {
    this.#writeOut(transaction, done);
  }

  /**
   * The secondary is lost and the VM goes on: everything held goes to the image, in order. What it
   * does not take stays readable, and comes before any later write.
   */
  passThrough(done: Done = raise): void {
    this.#isRecording = false;
    this.#isHeld = false;
    this.takeEvents();
    this.#writeOut(Infinity, done);
  }

  /** Tries again to write what the image refused, in order. */
  retry(done: Done = raise): void {
    if (this.#isRecording || !this.#hasUnwritten) return done();
    this.#writeOut(Infinity, done);
  }

  /**
   * Writes out what is held for these transactions, from the front, and forgets what is written. One
   * that fails ends it: those behind it may have reached the image, and are written again, in order.
   */
  #writeOut(upTo: number, done: Done): void {
    const session = this.#session;
    if (this.#isWriting) {
      this.#waiting.push(() => {
        // What belongs to an earlier session travels with this one's first transaction.
        if (session === this.#session) this.#writeOut(upTo, done);
        else done();
      });
      return;
    }
    const events = this.#closed.flatMap((each) => each.transaction <= upTo ? each.events : []);
    if (upTo === Infinity) events.push(...this.#open);
    let failure: Error | undefined;
    let written = 0;
    let left = events.length + 1;
    const one: Done = (error) => {
      failure ??= error;
      if (failure === undefined && left > 1) written++;
      if (--left > 0) return;
      this.#isWriting = false;
      if (session === this.#session) {
        this.#forget(written);
        if (failure === undefined) this.#overlay.drop(upTo);
      }
      const waiting = this.#waiting;
      this.#waiting = [];
      try {
        done(failure);
      } finally {
        for (const next of waiting) next();
      }
    };
    this.#isWriting = true;
    for (const event of events) {
      if (failure !== undefined) left--;
      else if (event.kind === "write") this.#store.write(event.offset, event.data, one);
      else if (event.kind === "zero") this.#store.zero(event.offset, event.lengthBytes, one);
      else one();
    }
    one();
  }

  /** The image has so many of the writes that were held first. */
  #forget(count: number): void {
    while (count > 0) {
      const events = this.#closed[0]?.events ?? this.#open;
      const gone = events.splice(0, count);
      count -= gone.length;
      for (const event of gone) this.#unwrittenBytes -= sizeOf(event);
      if (events.length === 0 && this.#closed.length > 0) this.#closed.shift();
      if (gone.length === 0 && events === this.#open) return;
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

  /** Reads the pages of which a change leaves a part as it is, where the overlay has them not. */
  #readEdges(
    change: Change,
    told: (edges: readonly EdgePage[], error?: Error) => void,
  ): void {
    const edges = this.#overlay.edgesOf(change);
    let failure: Error | undefined;
    let left = edges.length + 1;
    const one: Done = (error) => {
      failure ??= error;
      if (--left === 0) told(edges, failure);
    };
    for (const { offset, bytes } of edges) this.#store.read(bytes, offset, one);
    one();
  }
}

function sizeOf(event: TapEvent): number {
  return ENTRY_BYTES + (event.kind === "write" || event.kind === "copy" ? event.data.length : 0);
}
