import { WireError } from "../errors.ts";
import type { StreamEvent, StreamVisitor } from "../qemu/stream_events.ts";
import { StreamParser } from "../qemu/stream_parser.ts";
import { COLO_MESSAGE, COMMAND, QEMU_VM_FILE_MAGIC } from "../qemu/wire.ts";
import type { TxnSender } from "../txn/sender.ts";
import { FEATURE } from "../txn/wire.ts";
import { CompressionControl } from "./compression_control.ts";
import type { DeltaCache } from "./delta_cache.ts";
import { FirstPass } from "./first_pass.ts";
import { HeldCheckpoint } from "./held_checkpoint.ts";
import { LatencyWindow } from "./latency.ts";
import type { DigestTable, PageDigest } from "./page_digest.ts";
import type { PrimaryEvent, PrimaryOptions } from "./primary_options.ts";
import { QemuDialogue } from "./qemu_dialogue.ts";
import { StateCounter } from "./state_counter.ts";
import type { PrimaryCounters, StreamForwarder } from "./stream_forwarder.ts";
import { brokenOff, brokenSnapshot, noStream } from "./stream_loss.ts";
import { checkConfiguration, unsupportedMark } from "./unsupported_stream.ts";
export type { PrimaryCounters };
export type { PrimaryEvent, PrimaryOptions, PrimaryTaps } from "./primary_options.ts";

/** Before an XBZRLE record's bytes: `u8 encoding, u16 length`. */
const XBZRLE_HEADER_BYTES = 3;

/**
 * The primary's end: QEMU's stream in, transactions and answers to QEMU out. No I/O, and the
 * clock is handed in.
 *
 * ```text
 *           first bytes      VMDESCRIPTION, or QEMU's word   ACK
 * idle ─────────────────► full ──────────────────► settled ─────► (SHUT) ──► idle, plain: EOF → handover
 *   ▲ ▲                                                             └─(READY)─► colo
 *   │ └── another "QEVM": a snapshot loop
 * colo ──CHECKPOINT_REQUEST → REPLY──► VMSTATE_SEND → BEGIN ──state complete → COMMIT──► colo
 *                                                     RECEIVED, LOADED: at once, or at ACK
 * ```
 *
 * {@link QemuDialogue} holds the conversation that this gives with QEMU.
 *
 * Whatever is forwarded shares the memory given to {@link receiveStream}, see {@link TxnSender}.
 */
export class Primary implements StreamVisitor {
  readonly #options: PrimaryOptions;
  readonly #txn: TxnSender;
  readonly #clock: () => number;
  readonly #parser = new StreamParser(this);
  readonly #forwarder: StreamForwarder;
  readonly #held: HeldCheckpoint;
  readonly #compression: CompressionControl;
  /** What is said to QEMU beside its stream. */
  readonly dialogue: QemuDialogue;
  /** How the end of a full state is known that nobody describes. */
  readonly firstPass: FirstPass;
  #events: PrimaryEvent[] = [];
  readonly #state = new StateCounter();

  /** A plain stream has ended whole: only then may the VM be given away. */
  #mayHandOver = false;
  #isDescribed = false;
  #readAt = 0;
  #checkpointEnd = 0;
  readonly counters: PrimaryCounters = {
    committed: 0,
    pages: 0,
    zeroPages: 0,
    unchangedPages: 0,
    stateBytes: 0,
    deltaPages: 0,
    streamBytes: 0,
    payloadBytes: 0,
    lastPayloadBytes: 0,
  };
  /** Checkpoint read → forwarded, where that is put off until QEMU has its answer. */
  readonly settling = new LatencyWindow();
  /** COMMIT → ACK; counts from the checkpoint's last byte read. */
  readonly roundTrip = new LatencyWindow();
  /** When the last transaction was acknowledged, on the clock handed in. */
  committedAt = 0;

  constructor(options: PrimaryOptions, txn: TxnSender, clock: () => number) {
    this.#options = options;
    this.#txn = txn;
    this.#clock = clock;
    this.#compression = new CompressionControl(options.compression, txn, this.counters);
    this.#forwarder = this.#compression.forwarder;
    this.#held = new HeldCheckpoint(this.#forwarder, options.maxInFlightBytes);
    this.dialogue = new QemuDialogue(options, txn, clock);
    this.firstPass = new FirstPass(this.#parser, this.dialogue, options, clock);
  }

  /** Bytes of QEMU's stream taken so far. */
  get streamOffset(): number {
    return this.#parser.streamOffset;
  }

  /** The copy of what the replica has, where one is kept. */
  get cache(): DeltaCache | undefined {
    return this.#compression.cache;
  }
  /** In words, what the stream is inside of. */
  get place(): string {
    return this.#parser.place;
  }
  get isColo(): boolean {
    return this.dialogue.isColo;
  }
  get mayBeColo(): boolean {
    return this.dialogue.mayBeColo;
  }
  /**
   * Whether QEMU keeps memory for every checkpoint: one that wants a return path for COLO, which is
   * 11 or later, goes on describing what it sends (measured, 11.1: 97 KB each for a default `pc`).
   */
  get hoards(): boolean {
    return this.isColo && this.#isDescribed && this.dialogue.hasReturnPath;
  }
  /** How long the VM stands still for a checkpoint, see {@link QemuDialogue.pause}. */
  get pause(): LatencyWindow {
    return this.dialogue.pause;
  }
  get receiving(): LatencyWindow {
    return this.dialogue.receiving;
  }
  /**
   * Whether the digests of the replica's pages must be had before the stream's next bytes can be
   * taken: a full stream is about to begin, and the peer has a replica.
   */
  wantsDigests(nextByte: number): boolean {
    return this.#parser.atBoundary && nextByte === QEMU_VM_FILE_MAGIC >>> 24 &&
      !this.#forwarder.comparable && this.#txn.transaction > 0 &&
      ((this.#txn.peer?.features ?? 0) & FEATURE.digests) !== 0;
  }

  /**
   * Says what the replica holds.
   *
   * @param pages Page count by block name.
   * @param digest Computes digests under the seed that the table was made with.
   */
  setDigests(table: DigestTable, pages: ReadonlyMap<string, number>, digest: PageDigest): void {
    this.#forwarder.setDigests(table, pages, digest);
  }

  /**
   * Takes bytes of QEMU's stream.
   *
   * @returns One past the last byte taken; the rest must be presented again with more behind it.
   *   May stop at the end of a stream with bytes left: ask {@link wantsDigests}, and call again.
   * @throws {WireError} where the stream is at fault.
   */
  receiveStream(bytes: Uint8Array, start: number, end: number): number {
    this.settle();
    this.#held.open(bytes, this.#parser.streamOffset - start);
    const next = this.#parser.parse(bytes, start, end);
    this.#held.close(next);
    return next;
  }

  /**
   * True while a checkpoint is read, or has been read, and not forwarded: what was given to
   * {@link receiveStream} meanwhile must not change.
   */
  get holding(): boolean {
    return this.#held.holding;
  }

  /** Says how much waits for the peer, see {@link CompressionControl.noteBacklog}. */
  noteBacklog(pendingBytes: number): void {
    this.#compression.noteBacklog(pendingBytes);
  }

  /** Forwards a checkpoint that has been read. Call it once QEMU has its answer. */
  settle(): void {
    if (!this.#held.read) return;
    this.#held.forward();
    this.#commitCheckpoint();
    this.settling.add(this.#clock() - this.#readAt);
  }

  /**
   * Cancels the open transaction, and forgets what is held of it: while something is held nothing gets
   * out, and a session's last word must.
   */
  abandon(): void {
    this.#held.drop();
    this.#forwarder.cancel();
  }

  /**
   * Says that QEMU's stream ended.
   *
   * @throws {WireError} `truncated` if it broke off inside a plain stream.
   * @throws {TransportError} if it was a COLO stream, or may have been one: a loss.
   */
  endOfStream(unparsedBytes: number): void {
    this.settle();
    this.#held.drop();
    this.dialogue.end();
    const offset = this.#parser.streamOffset + unparsedBytes;
    if (offset === 0) throw noStream();
    if (this.mayBeColo) {
      this.#forwarder.cancel();
      const place = this.isColo ? this.#parser.place : undefined;
      throw brokenOff(place, offset, this.#txn.transaction);
    }
    try {
      this.#parser.finish(unparsedBytes);
    } catch (error) {
      this.#forwarder.cancel();
      throw this.dialogue.isSnapshots ? brokenSnapshot(this.#parser.place, error) : error;
    }
    this.#mayHandOver = !this.dialogue.isSnapshots;
    this.#maybeHandover();
  }

  /** Says that the peer acknowledged a transaction. */
  acked(transaction: number, roundTripMs: number): void {
    this.counters.committed++;
    this.committedAt = this.#clock();
    this.roundTrip.add(roundTripMs);
    this.#compression.committed(transaction, this.committedAt);
    this.#events.push({ kind: "committed", transaction });
    this.#options.taps?.release(transaction);
    this.dialogue.acked(transaction);
    this.#maybeHandover();
  }

  /** Says that all output held for this transaction, and for those before it, is out. */
  released(transaction: number): void {
    this.#txn.released(transaction);
  }

  handedOver(): void {
    this.#events.push({ kind: "handed-over", transaction: this.#txn.transaction });
  }

  /** Lets time pass. */
  tick(): void {
    this.#held.tick(this.#clock());
    this.dialogue.tick();
    this.#maybeHandover();
  }

  /** Milliseconds until tick() has something to do, or Infinity. */
  get nextTickMs(): number {
    return this.dialogue.nextTickMs;
  }

  /** Takes what is to be written to QEMU's return path. */
  takeReplies(): Uint8Array[] {
    return this.dialogue.takeReplies();
  }

  takeEvents(): PrimaryEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }

  /** Sends recorded events with the open transaction, if there is one. */
  forwardEvents(): void {
    if (this.#options.taps === undefined || !this.#txn.open) return;
    for (const pieces of this.#options.taps.takeEvents()) this.#txn.event(pieces);
  }

  /**
   * The VM stands still: what it said until now belongs to the open transaction. Both a checkpoint
   * (behind VMSTATE_SEND) and a full stream (behind its last byte) come to this point.
   */
  #closeEpoch(): void {
    const taps = this.#options.taps;
    if (taps === undefined) return;
    taps.drain();
    taps.closeEpoch(this.#txn.transaction);
    this.forwardEvents();
  }

  // What the parser finds:

  event(event: StreamEvent): void {
    switch (event.kind) {
      case "header":
        this.dialogue.begin();
        this.firstPass.opened();
        this.#state.begin(event.offset);
        return this.#forwarder.beginStream(event.offset);
      case "configuration":
        return checkConfiguration(event);
      case "command":
        return this.#command(event.command, event.data);
      case "ram-blocks":
        this.#state.blocks(event.blocks);
        this.#compression.beginFull();
        this.#forwarder.beginFull(event.blocks, this.#parser.pageBytes, event.endOffset);
        return this.forwardEvents();
      case "device-state":
        return this.firstPass.keep(event.state, event.sections, event.offset);
      case "vmdescription":
        this.#isDescribed = true;
        return;
      case "stream-complete":
        return this.#fullComplete(event.endOffset);
      case "colo":
        return this.#coloMessage(event.message, event.endOffset);
      case "checkpoint":
        return this.#checkpointComplete(event.endOffset);
    }
  }

  page(
    block: number,
    offset: number,
    bytes: Uint8Array,
    at: number,
    recordOffset: number,
    named: boolean,
  ): void {
    this.#state.record(block, named, this.#parser.pageBytes);
    this.#held.page(block, offset, bytes, at, recordOffset, named);
  }

  fill(block: number, offset: number, value: number, recordOffset: number, named: boolean): void {
    this.#state.record(block, named, 1);
    this.#held.fill(block, offset, value, recordOffset, named);
  }

  xbzrle(
    block: number,
    offset: number,
    _bytes: Uint8Array,
    _at: number,
    lengthBytes: number,
    recordOffset: number,
    named: boolean,
  ): void {
    this.#state.record(block, named, XBZRLE_HEADER_BYTES + lengthBytes);
    this.#held.xbzrle(block, offset, recordOffset, named);
  }

  mark(flag: number, recordOffset: number): void {
    throw unsupportedMark(flag, recordOffset);
  }

  #command(command: number, data: Uint8Array): void {
    switch (command) {
      case COMMAND.MIG_CMD_OPEN_RETURN_PATH:
        return this.dialogue.openReturnPath();
      case COMMAND.MIG_CMD_PING:
        return this.dialogue.ping(data);
      case COMMAND.MIG_CMD_ENABLE_COLO:
        return this.dialogue.enableColo();
    }
  }

  #fullComplete(endOffset: number): void {
    if (!this.#txn.open) {
      throw new WireError("migration", endOffset, "bad-order", "a stream without any RAM");
    }
    this.firstPass.completed();
    this.counters.stateBytes += this.#state.end(endOffset);
    this.#forwarder.end(endOffset);
    this.#compression.endFull();
    this.#closeEpoch();
    this.dialogue.fullSent(this.#txn.commit(this.#clock()));
  }

  #coloMessage(message: number, endOffset: number): void {
    switch (message) {
      case COLO_MESSAGE.CHECKPOINT_REQUEST:
        if (!this.dialogue.requested) this.#events.push({ kind: "colo" });
        if (this.dialogue.isVmPaused) this.#events.push({ kind: "paused" });
        this.#forwarder.forgetDigests();
        return this.dialogue.request();
      case COLO_MESSAGE.VMSTATE_SEND: {
        const stoppedAt = this.dialogue.stopped();
        this.#state.begin(endOffset);
        this.settle();
        const work = this.#compression.beginCheckpoint(stoppedAt);
        this.#forwarder.beginCheckpoint(endOffset);
        if (work && this.#options.commit === "async") {
          this.#held.begin(endOffset, stoppedAt);
        }
        this.#closeEpoch();
        return;
      }
    }
  }

  #checkpointComplete(endOffset: number): void {
    this.counters.stateBytes += this.#state.end(endOffset);
    this.#readAt = this.dialogue.received();
    this.#checkpointEnd = endOffset;
    if (!this.#held.complete(endOffset)) this.#commitCheckpoint();
    if (this.#options.commit === "async") this.dialogue.loaded();
  }

  #commitCheckpoint(): void {
    this.#forwarder.end(this.#checkpointEnd);
    const transaction = this.#txn.commit(this.#readAt);
    this.#compression.sent(transaction);
    if (this.#options.commit === "sync") this.dialogue.loadedAtAck(transaction);
  }

  /** After EOF of a plain stream: once all is acknowledged, and out, the VM is given away. */
  #maybeHandover(): void {
    if (!this.#mayHandOver || this.#txn.inFlight.length > 0 || !this.#txn.ready) return;
    if (!this.#options.taps?.isReleasing) this.#txn.handover();
  }
}
