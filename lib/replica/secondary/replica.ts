import { StateError, WireError } from "../../errors.ts";
import { asRunning } from "../../qemu/devices/global_state.ts";
import type { RamRecord } from "../../qemu/ram_record.ts";
import type { StreamEvent, StreamVisitor } from "../../qemu/stream_events.ts";
import { StreamParser } from "../../qemu/stream_parser.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import { checkStaged, RamImage } from "../pages/ram_image.ts";
import { composeReplica, composeStaged, type LoadableState } from "./compose_replica.ts";
import { type MachineShape, ShapeReader } from "./machine_shape.ts";
import { sameBlocks } from "../../qemu/same_blocks.ts";
import type { MachineState, StagedState, TransactionSize } from "./machine_state.ts";
import {
  type MachineRecord,
  MEMORY_STORE,
  type PageStore,
  type ReplicaStore,
} from "../pages/page_store.ts";
import { type AllocateSlab, SlotPool } from "../pages/slot_pool.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";
import { recognizeMachine, type StoredReplica } from "./stored_replica.ts";
import type { StreamShape } from "../../decisions/whose_replica.ts";
import { checkConfiguration, trailingBytes, unsupportedMark } from "../unsupported_stream.ts";
import type { TransactionKind } from "../../txn/transaction_visitor.ts";
import { Carry } from "../../bytes/carry.ts";

const NOTHING = new Uint8Array(0);

export type { TransactionSize } from "./machine_state.ts";

/**
 * The secondary's copy of the VM. It changes only at {@link commit}, and then completely.
 *
 * ```text
 * idle ──begin()──► staging ──receive()…──► staging ──commit()──► idle (the transaction's state)
 *                      └───────────abort()──────────────────────► idle (the last one's)
 * ```
 */
export class Replica implements StreamVisitor, LoadableState {
  readonly #maxTransactionBytes: number;
  readonly #allocate: AllocateSlab | undefined;
  readonly #store: ReplicaStore;
  #pool: SlotPool | undefined;
  #image: RamImage | undefined;
  #machine: MachineState | undefined;
  #committed = 0;
  /** Whether the store has been told that the committed state is whole. */
  #isWhole = true;

  /**
   * Compares a full stream's machine with the committed one before any of its pages is kept.
   *
   * @throws {WireError} if it must not replace the committed one.
   */
  admitStream: (coming: StreamShape, kept: StreamShape | undefined) => void = () => {};

  #parser: StreamParser | undefined;
  #carry = new Carry();
  #kind: TransactionKind = { full: true, based: false };
  #staging: RamImage | undefined;
  #staged: { -readonly [K in keyof StagedState]?: StagedState[K] } = {};
  readonly #shapes = new ShapeReader();
  #complete = false;
  #size = { pages: 0, zeroPages: 0, deviceStateBytes: 0 };

  /**
   * @param maxTransactionBytes The most bytes of pages, and of events, that a transaction may
   *   stage.
   * @param taps The secondary's share of the event-tap; nothing by default.
   * @param store The store of committed pages; this process's memory by default.
   */
  constructor(
    maxTransactionBytes: number,
    allocate?: AllocateSlab,
    readonly taps = new SecondaryTaps(new Map(), new Set()),
    store: ReplicaStore = MEMORY_STORE,
  ) {
    this.#store = store;
    this.taps.onApplied = () => {
      try {
        this.#noteWhole();
      } catch (error) {
        this.taps.onRefused(error as Error);
      }
    };
    this.#maxTransactionBytes = maxTransactionBytes;
    this.#allocate = allocate;
  }

  /** The last committed transaction; 0 before the first. */
  get committed(): number {
    return this.#committed;
  }
  /** The machine type, once a state is committed. */
  get machine(): string | undefined {
    return this.#machine?.shape.machine;
  }
  get store(): PageStore {
    if (this.#image === undefined) throw new StateError("nothing was committed");
    return this.#image.store;
  }
  /**
   * Whether the pages of a full stream that builds on no replica are stored as they come, without
   * limit.
   */
  get storesPages(): boolean {
    return this.#store.writesThrough;
  }
  /** The shape of the committed state. The same object while it does not change. */
  get shape(): MachineShape {
    if (this.#machine === undefined) throw new StateError("nothing was committed");
    return this.#machine.shape;
  }
  get blocks(): readonly RamBlock[] {
    return this.#image?.blocks ?? [];
  }
  /** The committed RAM. */
  get image(): RamImage | undefined {
    return this.#image;
  }
  /** True while a transaction is open. */
  get staging(): boolean {
    return this.#parser !== undefined;
  }
  /** Bytes of memory in use for pages, committed and staged. */
  get memoryBytes(): number {
    if (this.#pool === undefined) return 0;
    const staging = this.#staging === this.#image ? 0 : this.#staging?.store.heldBytes ?? 0;
    return this.#pool.live * this.#pool.pageBytes + (this.#image?.store.heldBytes ?? 0) + staging;
  }
  /** The last committed state, without the RAM. */
  get machineRecord(): MachineRecord | undefined {
    return this.#machine;
  }

  /**
   * Goes on with the committed state of an earlier process.
   *
   * @throws {WireError} if QEMU would not load the state: nothing has changed then.
   */
  adopt(stored: StoredReplica): void {
    if (this.#committed !== 0) throw new StateError("a replica is adopted before any transaction");
    const { shape, uuid, context } = recognizeMachine(stored);
    const pool = new SlotPool(stored.pageBytes, this.#allocate);
    this.#image = new RamImage(stored.blocks, pool, stored.open(pool), true);
    this.#pool = pool;
    const { configuration, device, vmdescription } = stored;
    this.taps.adopt(stored.disks);
    this.#machine = { configuration, device, vmdescription, shape, uuid, context };
    this.#committed = stored.transaction;
  }

  /** Opens a transaction. */
  begin(kind: TransactionKind): void {
    if (this.#parser !== undefined) throw new StateError("a transaction is already open");
    if (!kind.full && this.#machine === undefined) {
      throw new WireError("transaction", 0, "bad-order", "a checkpoint before any full state");
    }
    this.#kind = kind;
    this.#complete = false;
    // A machine without CONFIGURATION is composed without it, whatever was committed before. For a
    // machine that describes nothing, an earlier description does not count.
    this.#staged = kind.full
      ? { configuration: NOTHING, vmdescription: NOTHING, uuid: undefined }
      : {};
    this.#shapes.begin(this.#machine?.shape, kind.full);
    this.#size = { pages: 0, zeroPages: 0, deviceStateBytes: 0 };
    if (kind.full) this.#parser = new StreamParser(this);
    else {
      this.#parser = StreamParser.forCheckpoint(this, this.#machine!.context);
      this.#staging = this.#image;
    }
  }

  /** Takes a piece of the open transaction's payload; it does not show before the commit. */
  receive(bytes: Uint8Array, at: number, end: number): void {
    const parser = this.#parser;
    if (parser === undefined) throw new StateError("payload without a transaction");
    if (this.#complete && end > at) throw trailingBytes(parser.streamOffset);
    this.#carry.feed(bytes, at, end, (buffer, start, stop) => {
      const next = parser.parse(buffer, start, stop);
      if (this.#complete && next < stop) throw trailingBytes(parser.streamOffset);
      return next;
    });
  }

  /** Takes an EVENT of the open transaction. @param payload Owned by the replica from then on. */
  receiveEvent(payload: Uint8Array, offset: number): void {
    this.taps.stage(payload, offset);
    if (this.taps.stagedBytes <= this.#maxTransactionBytes) return;
    throw new WireError(
      "transaction",
      offset,
      "too-large",
      `the transaction holds more than ${this.#maxTransactionBytes} bytes of events`,
    );
  }

  /**
   * Checks that the transaction is complete. The committed state does not change.
   *
   * @returns The state that the replica would have; valid until the commit or the abort.
   * @throws {WireError} if the transaction is not complete.
   */
  complete(): LoadableState {
    const parser = this.#parser;
    if (parser === undefined) throw new StateError("commit without a transaction");
    this.taps.requireNamed();
    // For a machine that describes nothing, COMMIT ends the state.
    const unparsed = this.#carry.pendingBytes;
    if (!this.#complete && unparsed === 0 && parser.mayEndHere) parser.endState();
    if (!this.#complete) {
      throw new WireError(
        "migration",
        parser.streamOffset + unparsed,
        "truncated",
        `the transaction ends inside ${parser.place}`,
      );
    }
    const image = this.#staging!;
    const record = { ...this.#machine, ...this.#staged } as MachineRecord;
    const shape = this.#shapes.read(image.blocks);
    return { shape, store: image.store, compose: (shared) => composeStaged(image, record, shared) };
  }

  /**
   * Makes the transaction the replica's state, completely.
   *
   * @returns The transaction's size.
   * @throws {WireError} if it is not complete: nothing has changed.
   * @throws {TransportError} if there is no room for its pages: nothing has changed.
   */
  commit(transaction: number): TransactionSize {
    const { shape } = this.complete();
    const image = this.#staging!;
    const machine = {
      ...this.#machine,
      ...this.#staged,
      shape,
      context: this.#parser!.checkpointContext,
    } as MachineState;
    image.prepare();
    this.#store.begin(transaction, machine, image.store);
    image.commit();
    if (image !== this.#image) {
      this.#image?.release();
      this.#image = image;
    }
    this.#machine = machine;
    this.#committed = transaction;
    this.#close();
    this.#isWhole = false;
    this.taps.commit(transaction);
    this.#noteWhole();
    return this.#size;
  }

  /**
   * Notes that the next process could go on with what is stored. Not if writes for a disk's copy
   * are pending, which would be lost with this process; nor while a disk is being copied, which the
   * next process could not know.
   */
  #noteWhole(): void {
    if (this.#isWhole || this.#committed === 0) return;
    if (this.taps.pendingWrites > 0 || this.taps.incomplete.length > 0) return;
    this.#isWhole = true;
    this.#store.end();
  }

  /** Drops the open transaction, if there is one. */
  abort(): void {
    if (this.#parser === undefined) return;
    if (this.#staging !== this.#image) this.#staging?.release();
    else this.#staging?.abort();
    this.taps.abort();
    this.#close();
  }

  #close(): void {
    this.#parser = undefined;
    this.#staging = undefined;
    this.#staged = {};
    this.#carry = new Carry();
  }

  /**
   * Changes a state that was noted as a paused VM's to that of a running one: see {@link
   * asRunning}.
   */
  letRun(): void {
    const machine = this.#machine;
    if (machine !== undefined) this.#machine = { ...machine, device: asRunning(machine.device) };
  }

  /** The last committed state as one stream that QEMU loads. */
  compose(shared?: ReadonlyMap<string, number>): Generator<Uint8Array> {
    const image = this.#image;
    const machine = this.#machine;
    if (image === undefined || machine === undefined) {
      throw new StateError("nothing was committed that could be activated");
    }
    return composeReplica(image, machine, shared);
  }

  // Called by the parser:

  event(event: StreamEvent): void {
    // The parser would go on to the next checkpoint; a transaction has only one.
    if (this.#complete) throw trailingBytes(this.#parser!.streamOffset);
    switch (event.kind) {
      case "configuration":
        this.#staged.configuration = event.configuration.raw;
        this.#shapes.machine = event.configuration.machine;
        this.#staged.uuid = event.configuration.uuid;
        return checkConfiguration(event);
      case "ram-blocks":
        this.#beginImage(event.blocks, event.offset);
        return;
      case "device-state":
        this.#stageDevice(event.state);
        this.#shapes.sections = event.sections;
        return;
      case "vmdescription":
        this.#staged.vmdescription = event.json;
        return;
      case "stream-complete":
        this.#requireImage(event.offset);
        this.#complete = true;
        return;
      case "checkpoint":
        this.#stageDevice(event.state);
        this.#shapes.sections = event.sections;
        this.#complete = true;
        return;
    }
  }

  page(record: RamRecord): void {
    const image = this.#requireImage(record.offset);
    image.stage(record);
    if (record.kind === "fill") this.#size.zeroPages++;
    else this.#size.pages++;
    checkStaged(image, this.#maxTransactionBytes, record.offset);
  }

  mark(flag: number, offset: number): void {
    throw unsupportedMark(flag, offset);
  }

  #stageDevice(state: Uint8Array): void {
    this.#staged.device = state;
    this.#size.deviceStateBytes = state.length;
  }

  #requireImage(offset: number): RamImage {
    if (this.#staging !== undefined) return this.#staging;
    throw new WireError("migration", offset, "bad-order", "RAM pages before the list of blocks");
  }

  #beginImage(blocks: readonly RamBlock[], offset: number): void {
    if (!this.#kind.full) {
      throw new WireError("migration", offset, "bad-order", "a block list inside a checkpoint");
    }
    this.admitStream(
      { machine: this.#shapes.machine, uuid: this.#staged.uuid, blocks },
      this.#machine && { ...this.#machine.shape, uuid: this.#machine.uuid },
    );
    if (this.#kind.based) {
      const image = this.#image;
      if (
        image === undefined || image.pageBytes !== this.#parser!.pageBytes ||
        !sameBlocks(image.blocks, blocks)
      ) {
        throw new WireError(
          "migration",
          offset,
          "bad-value",
          "the transaction builds on a replica with other RAM blocks",
          { hint: "connect again: a new session starts from the replica as it is" },
        );
      }
      this.#staging = image;
      return;
    }
    const pageBytes = this.#parser!.pageBytes;
    if (this.#pool === undefined || this.#pool.pageBytes !== pageBytes) {
      if (this.#image !== undefined) {
        throw new WireError("migration", offset, "bad-value", "another page size than before");
      }
      this.#pool = new SlotPool(pageBytes, this.#allocate);
    }
    this.#staging = new RamImage(blocks, this.#pool, this.#store.create(blocks, this.#pool));
  }
}
