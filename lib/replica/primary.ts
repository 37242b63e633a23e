import { WireError } from "../errors.ts";
import { encodeColoMessage, encodePong, encodeShut } from "../qemu/return_path.ts";
import type { StreamEvent, StreamVisitor } from "../qemu/stream_events.ts";
import { StreamParser } from "../qemu/stream_parser.ts";
import { COLO_MESSAGE, COMMAND, QEMU_VM_FILE_MAGIC } from "../qemu/wire.ts";
import type { TxnSender } from "../txn/sender.ts";
import { FEATURE } from "../txn/wire.ts";
import { CompressionControl } from "./compression_control.ts";
import type { DeltaCache } from "./delta_cache.ts";
import { HeldCheckpoint } from "./held_checkpoint.ts";
import { LatencyWindow } from "./latency.ts";
import type { DigestTable, PageDigest } from "./page_digest.ts";
import type { PrimaryEvent, PrimaryOptions } from "./primary_options.ts";
import { unsupportedMark } from "./replica.ts";
import { StateCounter } from "./state_counter.ts";
import type { PrimaryCounters, StreamForwarder } from "./stream_forwarder.ts";
import { brokenOff, brokenSnapshot, noStream } from "./stream_loss.ts";

export type { PrimaryCounters };
export type { PrimaryEvent, PrimaryOptions, PrimaryTaps } from "./primary_options.ts";

/**
 * How long to wait, with SHUT sent and CHECKPOINT_READY held back, for a stream that opened a
 * return path to end. A plain migration ends at once; COLO waits for us, and from QEMU 11 on does
 * not say before its first CHECKPOINT_REQUEST that it is COLO.
 */
const PLAIN_END_MS = 250;

/** Before an XBZRLE record's bytes: `u8 encoding, u16 length`. */
const XBZRLE_HEADER_BYTES = 3;

/**
 * The primary's end: QEMU's stream in, transactions and answers to QEMU out. No I/O, and the
 * clock is handed in.
 *
 * ```text
 *           first bytes            VMDESCRIPTION            ACK
 * idle ─────────────────► full ──────────────────► settled ─────► (SHUT) ──► idle, plain: EOF → handover
 *   ▲ ▲                                                             └─(READY)─► colo
 *   │ └── another "QEVM": a snapshot loop
 * colo ──CHECKPOINT_REQUEST → REPLY──► VMSTATE_SEND → BEGIN ──state complete → COMMIT──► colo
 *                                                     RECEIVED, LOADED: at once, or at ACK
 * ```
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
  #replies: Uint8Array[] = [];
  #events: PrimaryEvent[] = [];
  readonly #state = new StateCounter();

  #returnPath = false;
  /** What is known of the stream's kind. */
  #kind: "unknown" | "plain" | "colo" | "snapshots";
  #sawRequest = false;
  /** The full transaction whose ACK QEMU's answer waits for. */
  #awaited = 0;
  #readyAt = Infinity;
  #readySent = false;
  #deferredRequest = false;
  #ended = false;
  /** A plain stream has ended whole: only then may the VM be given away. */
  #mayHandOver = false;
  #stoppedAt = 0;
  #readAt = 0;
  #checkpointEnd = 0;
  #syncAwaited = 0;
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
  /** VMSTATE_SEND read → VMSTATE_LOADED written: the VM stands still that long. */
  readonly pause = new LatencyWindow();
  /** VMSTATE_SEND read → the checkpoint's last byte read. */
  readonly receiving = new LatencyWindow();
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
    this.#kind = options.stream === "auto" ? "unknown" : options.stream;
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
    return this.#kind === "colo";
  }
  /** From CHECKPOINT_READY on a QEMU that was silent about it may be in COLO. */
  get mayBeColo(): boolean {
    return this.#kind === "colo" || this.#readySent;
  }

  /** Set while only the end of the device state's description is missing; see the host. */
  get inDeviceState(): boolean {
    return this.#parser.inDeviceState;
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
   * Says that QEMU's stream ended.
   *
   * @throws {WireError} `truncated` if it broke off inside a plain stream.
   * @throws {TransportError} if it was a COLO stream, or may have been one: a loss.
   */
  endOfStream(unparsedBytes: number): void {
    this.settle();
    this.#held.drop();
    this.#ended = this.#kind !== "snapshots";
    const offset = this.#parser.streamOffset + unparsedBytes;
    if (offset === 0) throw noStream();
    if (this.#sawRequest || this.#kind === "colo" || this.#readySent) {
      this.#forwarder.cancel();
      const place = this.#sawRequest || this.#kind === "colo" ? this.#parser.place : undefined;
      throw brokenOff(place, offset, this.#txn.transaction);
    }
    try {
      this.#parser.finish(unparsedBytes);
    } catch (error) {
      this.#forwarder.cancel();
      throw this.#kind === "snapshots" ? brokenSnapshot(this.#parser.place, error) : error;
    }
    this.#mayHandOver = this.#kind !== "snapshots";
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
    if (transaction === this.#awaited) this.#answerFull();
    if (transaction === this.#syncAwaited) this.#resumeVm();
    if (this.#deferredRequest && this.#mayReply()) this.#reply();
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
    if (!this.#readySent && !this.#ended && this.#clock() >= this.#readyAt) this.#sendReady();
  }

  /** Milliseconds until tick() has something to do, or Infinity. */
  get nextTickMs(): number {
    return this.#readySent || this.#ended ? Infinity : this.#readyAt - this.#clock();
  }

  /** Takes what is to be written to QEMU's return path. */
  takeReplies(): Uint8Array[] {
    const replies = this.#replies;
    if (replies.length > 0) this.#replies = [];
    return replies;
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
        this.#returnPath = false;
        // The stream before this one was plain after all.
        this.#readyAt = Infinity;
        this.#readySent = false;
        this.#state.begin(event.offset);
        return this.#forwarder.beginStream(event.offset);
      case "configuration":
        if (event.configuration.capabilities.includes("x-ignore-shared")) {
          throw new WireError(
            "migration",
            event.offset,
            "unsupported",
            "the stream leaves out RAM that is shared with a file",
            { hint: "migrate_set_capability x-ignore-shared off" },
          );
        }
        return;
      case "command":
        return this.#command(event.command, event.data);
      case "ram-blocks":
        this.#state.blocks(event.blocks);
        this.#compression.beginFull();
        this.#forwarder.beginFull(event.blocks, this.#parser.pageBytes, event.endOffset);
        return this.forwardEvents();
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
        this.#returnPath = true;
        return;
      case COMMAND.MIG_CMD_PING:
        this.#replies.push(encodePong(data));
        return;
      case COMMAND.MIG_CMD_ENABLE_COLO:
        this.#kind = "colo";
        return;
    }
  }

  #fullComplete(endOffset: number): void {
    if (!this.#txn.open) {
      throw new WireError("migration", endOffset, "bad-order", "a stream without any RAM");
    }
    this.counters.stateBytes += this.#state.end(endOffset);
    this.#forwarder.end(endOffset);
    this.#compression.endFull();
    this.#closeEpoch();
    this.#awaited = this.#txn.commit(this.#clock());
  }

  /** The secondary has the full state: lets a plain migration end, or COLO begin. */
  #answerFull(): void {
    this.#awaited = 0;
    if (this.#returnPath) this.#replies.push(encodeShut(0));
    if (this.#kind === "colo") this.#sendReady();
    else if (this.#kind === "unknown" && this.#returnPath) {
      this.#readyAt = this.#clock() + PLAIN_END_MS;
    }
  }

  #sendReady(): void {
    this.#readyAt = Infinity;
    this.#readySent = true;
    this.#replies.push(encodeColoMessage("CHECKPOINT_READY"));
  }

  #coloMessage(message: number, endOffset: number): void {
    switch (message) {
      case COLO_MESSAGE.CHECKPOINT_REQUEST:
        if (!this.#sawRequest) this.#events.push({ kind: "colo" });
        this.#sawRequest = true;
        this.#kind = "colo";
        this.#forwarder.forgetDigests();
        this.#options.taps?.checkpointRequested();
        if (this.#mayReply()) this.#reply();
        else this.#deferredRequest = true;
        return;
      case COLO_MESSAGE.VMSTATE_SEND: {
        this.#stoppedAt = this.#clock();
        this.#state.begin(endOffset);
        this.settle();
        const work = this.#compression.beginCheckpoint(this.#stoppedAt);
        this.#forwarder.beginCheckpoint(endOffset);
        if (work && this.#options.commit === "async") {
          this.#held.begin(endOffset, this.#stoppedAt);
        }
        this.#closeEpoch();
        return;
      }
    }
  }

  /** Whether there is room for one more transaction in flight; the VM runs while it waits. */
  #mayReply(): boolean {
    if (this.#txn.inFlight.length === 0) return true;
    let bytes = 0;
    for (const transaction of this.#txn.inFlight) bytes += transaction.bytes;
    return bytes < this.#options.maxInFlightBytes;
  }

  #reply(): void {
    this.#deferredRequest = false;
    this.#options.taps?.vmStops();
    this.#replies.push(encodeColoMessage("CHECKPOINT_REPLY"));
  }

  #checkpointComplete(endOffset: number): void {
    this.counters.stateBytes += this.#state.end(endOffset);
    this.#readAt = this.#clock();
    this.receiving.add(this.#readAt - this.#stoppedAt);
    this.#replies.push(encodeColoMessage("VMSTATE_RECEIVED"));
    this.#checkpointEnd = endOffset;
    if (!this.#held.complete(endOffset)) this.#commitCheckpoint();
    if (this.#options.commit === "async") this.#resumeVm();
  }

  #commitCheckpoint(): void {
    this.#forwarder.end(this.#checkpointEnd);
    const transaction = this.#txn.commit(this.#readAt);
    this.#compression.sent(transaction);
    if (this.#options.commit === "sync") this.#syncAwaited = transaction;
  }

  #resumeVm(): void {
    this.#syncAwaited = 0;
    this.#replies.push(encodeColoMessage("VMSTATE_LOADED"));
    this.pause.add(this.#clock() - this.#stoppedAt);
  }

  /** After EOF of a plain stream: once everything is acknowledged, the VM is given away. */
  #maybeHandover(): void {
    if (!this.#mayHandOver || this.#txn.inFlight.length > 0 || !this.#txn.ready) return;
    this.#txn.handover();
  }
}
