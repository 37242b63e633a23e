import { type Change, DiskOverlay, type EdgePage } from "./disk_overlay.ts";
import { type Done, raise } from "./done.ts";
import { MAX_EVENT_DATA_BYTES } from "../../txn/wire.ts";
import type { DiskMode, TapEvent } from "./tap_events.ts";

/**
 * A disk's storage. Calls are done at once or later, and take effect in the order in which they
 * were made: changes are made in that order, and a read sees those before it. The memory given to a
 * call must stay in place, and as it is, until the call is done.
 */
export interface DiskStore {
  readonly sizeBytes: number;
  /** Fills `into` with the content at `offset`. */
  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void;
  write(offset: number, data: Uint8Array, done: Done): void;
  zero(offset: number, lengthBytes: number, done: Done): void;
}

/** About how many bytes an event takes beside its data. */
const ENTRY_BYTES = 128;

/**
 * The writes of a protected disk at the primary: which are recorded, and which are held.
 *
 * *replicated*: every write goes to the primary's own copy at once, and is recorded, to be sent
 * with its epoch's transaction. *shared*: while the tap holds, writes stay in an overlay in memory,
 * which serves reads, and reach the shared image when their epoch is released.
 *
 * No write waits for its commit, in either mode: a checkpoint drains the disk, and a write that
 * waited for its commit would wait for ever. Instead, output of the guest that depends on a write
 * is held.
 *
 * A write is done, and recorded, in the same moment: when the store has made it. The store makes
 * changes in order, so the records are in the order of the image's changes. In shared mode that
 * moment comes when the rest of the pages that the write touches has been read: a later write to
 * the same page may have come before, and is in the overlay then, which the read does not touch.
 */
export class PrimaryDiskTap {
  readonly name: string;
  readonly mode: DiskMode;
  readonly #store: DiskStore;
  #isRecording = false;
  #isHeld = false;
  /** Writes behind this offset are not recorded: the resync will read them there. */
  #recordBelow = Infinity;
  #recorded: TapEvent[] = [];
  #recordedBytes = 0;
  readonly #overlay: DiskOverlay;
  /** Bytes of the events in {@link #open} and {@link #closed}. */
  #unwrittenBytes = 0;
  /** Shared mode: writes of the open epoch, and of closed ones by transaction. */
  #open: TapEvent[] = [];
  #closed: { readonly transaction: number; readonly events: TapEvent[] }[] = [];
  /**
   * Counts the calls of {@link start}: operations that were begun before are ignored afterwards.
   */
  #session = 0;
  /** Held writes are on their way to the shared image. */
  #isWriting = false;
  /** Called when that is over. */
  #waiting: (() => void)[] = [];

  /** Called when a write is recorded, which may be a reason to synchronize. */
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
   * Whether a flush is answered without flushing the image: because output of the guest that
   * depends on it waits until the secondary has the writes; or because a shared image has refused
   * writes, which travel with the session's first state.
   */
  get isFlushedOnCredit(): boolean {
    return this.#isHeld || this.mode === "shared" && this.#isRecording;
  }
  /** True while reads differ from the image's content. */
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
  /** True while writes wait only because the image has refused them. */
  get isStuck(): boolean {
    return !this.#isRecording && this.#hasUnwritten && !this.#isWriting;
  }
  get #hasUnwritten(): boolean {
    return this.#open.length + this.#closed.length > 0;
  }

  /**
   * A session begins: announces the disk to the secondary, and records replicated writes. Writes
   * that a shared image has refused until now travel in the first transaction, and are written with
   * it.
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
   * The secondary has the VM's state: from now on writes to a shared image are held until they are
   * committed, and the guest's output until the secondary knows of it. Before, there was no state
   * at the secondary that they could be ahead of.
   */
  hold(): void {
    this.#isRecording = true;
    this.#isHeld = true;
  }

  /**
   * From now on only writes in front of this offset are recorded: what is behind it will be read
   * from the image, and sent, before the secondary's copy is called whole.
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

  /** Writes. @param data Must not change until the write is done. */
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
      // Writes that the image should have by now come first; if it refuses them, the guest gets
      // that error too.
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

  /** Takes a change into the overlay, when the rest of its first and last page is known. */
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
   * Records the image's content in a range that it refused to change.
   *
   * @param then Called in any case: the guest gets the first error, and can assume nothing about
   *   the range.
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

  /** How many bytes from an offset on have to be recorded. */
  #recordedPart(offset: number): number {
    return this.mode === "shared" ? Infinity : Math.max(0, this.#recordBelow - offset);
  }

  /** Records an event that is no write of the guest, such as a part of the first copy. */
  add(event: TapEvent): void {
    this.#recorded.push(event);
    this.#recordedBytes += sizeOf(event);
  }

  /** Takes the events recorded since the last call, in order. */
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
   * The secondary has the transaction and all before it: their writes go to the shared image.
   * Writes that it refuses stay in the overlay, for another call.
   */
  release(transaction: number, done: Done = raise): void {
    this.#writeOut(transaction, done);
  }

  /**
   * The secondary is lost and the VM goes on: all held writes go to the image, in order. Writes
   * that it refuses stay readable, and are made before any later write.
   */
  passThrough(done: Done = raise): void {
    this.#isRecording = false;
    this.#isHeld = false;
    this.takeEvents();
    this.#writeOut(Infinity, done);
  }

  /** Makes the writes again that the image refused, in order. */
  retry(done: Done = raise): void {
    if (this.#isRecording || !this.#hasUnwritten) return done();
    this.#writeOut(Infinity, done);
  }

  /**
   * Makes the writes held for these transactions, from the front, and forgets them when they are
   * made. A failure ends this: later writes may have reached the image, and are made again, in
   * order.
   */
  #writeOut(upTo: number, done: Done): void {
    const session = this.#session;
    if (this.#isWriting) {
      this.#waiting.push(() => {
        // Writes of an earlier session travel with this session's first transaction.
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

  /** The image has this many of the oldest held writes. */
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

  /** Reads the pages that a change covers only partly, if the overlay does not have them. */
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
