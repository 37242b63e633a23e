import { TransportError, WireError } from "../errors.ts";
import { encodeColoMessage, encodePong, encodeShut } from "../qemu/return_path.ts";
import type { StreamEvent, StreamVisitor } from "../qemu/stream_events.ts";
import { StreamParser } from "../qemu/stream_parser.ts";
import { COLO_MESSAGE, COMMAND, QEMU_VM_FILE_MAGIC } from "../qemu/wire.ts";
import type { TxnSender } from "../txn/sender.ts";
import { FEATURE } from "../txn/wire.ts";
import { LatencyWindow } from "./latency.ts";
import type { DigestTable, PageDigest } from "./page_digest.ts";
import type { PrimaryEvent, PrimaryOptions } from "./primary_options.ts";
import { unsupportedMark } from "./replica.ts";
import { StateCounter } from "./state_counter.ts";
import { type PrimaryCounters, StreamForwarder } from "./stream_forwarder.ts";

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
  #syncAwaited = 0;
  readonly counters: PrimaryCounters = {
    committed: 0,
    pages: 0,
    zeroPages: 0,
    unchangedPages: 0,
    stateBytes: 0,
    payloadBytes: 0,
    lastPayloadBytes: 0,
  };
  /** VMSTATE_SEND read → VMSTATE_LOADED written: the VM stands still that long. */
  readonly pause = new LatencyWindow();
  /** VMSTATE_SEND read → the checkpoint's last byte read. */
  readonly receiving = new LatencyWindow();
  /** COMMIT → ACK. */
  readonly roundTrip = new LatencyWindow();
  /** When the last transaction was acknowledged, on the clock handed in. */
  committedAt = 0;

  constructor(options: PrimaryOptions, txn: TxnSender, clock: () => number) {
    this.#options = options;
    this.#txn = txn;
    this.#clock = clock;
    this.#forwarder = new StreamForwarder(txn, this.counters);
    this.#kind = options.stream === "auto" ? "unknown" : options.stream;
  }

  /** Bytes of QEMU's stream taken so far. */
  get streamOffset(): number {
    return this.#parser.streamOffset;
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
    this.#forwarder.open(bytes, this.#parser.streamOffset - start);
    const next = this.#parser.parse(bytes, start, end);
    this.#forwarder.close(next);
    return next;
  }

  /**
   * Says that QEMU's stream ended.
   *
   * @throws {WireError} `truncated` if it broke off inside a plain stream.
   * @throws {TransportError} if it was a COLO stream, or may have been one: a loss.
   */
  endOfStream(unparsedBytes: number): void {
    this.#ended = this.#kind !== "snapshots";
    const offset = this.#parser.streamOffset + unparsedBytes;
    if (offset === 0) {
      throw new WireError("migration", 0, "truncated", "there is no stream: stdin is empty", {
        hint: 'start me from QEMU: migrate "exec:kemari send …"',
      });
    }
    if (this.#sawRequest || this.#kind === "colo" || this.#readySent) {
      this.#forwarder.cancel();
      const what = this.#sawRequest || this.#kind === "colo"
        ? `the COLO stream broke off in ${this.#parser.place}`
        : "the stream ended after its first pass without asking for a checkpoint";
      throw new TransportError("QEMU", "read", `${what}, at offset ${offset}`, {
        hint: `the secondary keeps transaction ${this.#txn.transaction}: ` +
          "kemari failover activates it",
      });
    }
    try {
      this.#parser.finish(unparsedBytes);
    } catch (error) {
      this.#forwarder.cancel();
      if (this.#kind !== "snapshots") throw error;
      throw new TransportError("QEMU", "read", `a snapshot broke off in ${this.#parser.place}`, {
        cause: error,
      });
    }
    this.#mayHandOver = this.#kind !== "snapshots";
    this.#maybeHandover();
  }

  /** Says that the peer acknowledged a transaction. */
  acked(transaction: number, roundTripMs: number): void {
    this.counters.committed++;
    this.committedAt = this.#clock();
    this.roundTrip.add(roundTripMs);
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
    this.#forwarder.page(block, offset, bytes, at, recordOffset, named);
  }

  fill(block: number, offset: number, value: number, recordOffset: number, named: boolean): void {
    this.#state.record(block, named, 1);
    this.#forwarder.fill(block, offset, value, recordOffset, named);
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
    this.#forwarder.xbzrle(block, offset, recordOffset, named);
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
    this.#forwarder.endFull(endOffset);
    this.counters.stateBytes += this.#state.end(endOffset);
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
      case COLO_MESSAGE.VMSTATE_SEND:
        this.#stoppedAt = this.#clock();
        this.#state.begin(endOffset);
        this.#forwarder.beginCheckpoint(endOffset);
        this.#closeEpoch();
        return;
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
    this.#replies.push(encodeColoMessage("CHECKPOINT_REPLY"));
  }

  #checkpointComplete(endOffset: number): void {
    this.#forwarder.flush(endOffset);
    this.counters.stateBytes += this.#state.end(endOffset);
    this.#readAt = this.#clock();
    this.receiving.add(this.#readAt - this.#stoppedAt);
    const transaction = this.#txn.commit(this.#readAt);
    this.#replies.push(encodeColoMessage("VMSTATE_RECEIVED"));
    if (this.#options.commit === "sync") this.#syncAwaited = transaction;
    else this.#resumeVm();
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
