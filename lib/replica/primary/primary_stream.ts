import { WireError } from "../../errors.ts";
import type { RamRecord } from "../../qemu/ram_record.ts";
import type { StreamEvent, StreamVisitor } from "../../qemu/stream_events.ts";
import { StreamParser } from "../../qemu/stream_parser.ts";
import { COLO_MESSAGE, COMMAND } from "../../qemu/wire.ts";
import type { TxnSender } from "../../txn/sender.ts";
import { CompressionControl } from "./compression_control.ts";
import { DigestExchange } from "./digest_exchange.ts";
import { FirstPass } from "./first_pass.ts";
import { HeldCheckpoint } from "./held_checkpoint.ts";
import { LatencyWindow } from "../latency_window.ts";
import type { PrimaryConfig, PrimaryEvent } from "./primary_config.ts";
import type { QemuDialogue } from "./qemu_dialogue.ts";
import { StateCounter } from "./state_counter.ts";
import type { PrimaryCounters, StreamForwarder } from "./stream_forwarder.ts";
import { brokenOff, brokenSnapshot, noStream } from "./stream_loss.ts";
import { checkConfiguration, unsupportedMark } from "../unsupported_stream.ts";

type BlocksEvent = Extract<StreamEvent, { readonly kind: "ram-blocks" }>;

/**
 * QEMU's stream at the primary: where transactions begin and end, and what goes into them. A part
 * of {@link Primary}, whose documentation has the drawing, and how to drive both.
 */
export class PrimaryStream implements StreamVisitor {
  readonly #config: PrimaryConfig;
  readonly #txn: TxnSender;
  readonly #dialogue: QemuDialogue;
  readonly #tell: (event: PrimaryEvent) => void;
  readonly #stopwatch: () => number;
  readonly #parser = new StreamParser(this, { stopsAtBlocks: true });
  readonly #forwarder: StreamForwarder;
  readonly #held: HeldCheckpoint;
  readonly #state = new StateCounter();
  /** When the bytes that are being parsed were read. */
  #now: number;
  #readAt = 0;
  #checkpointEnd = 0;
  #isDescribed = false;
  readonly compression: CompressionControl;
  /** Finds the end of a full state without a description. */
  readonly firstPass: FirstPass;
  /** What is asked of the replica's pages before a full stream's. */
  readonly digests = new DigestExchange();
  /** A full stream that waits for the answer. */
  #waiting: BlocksEvent | undefined;
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
  /** From a checkpoint read to it forwarded, if that is put off until QEMU has its answer. */
  readonly settling = new LatencyWindow();

  /**
   * @param tell Takes events for the primary's owner.
   * @param stopwatch As {@link Primary}'s.
   */
  constructor(
    config: PrimaryConfig,
    txn: TxnSender,
    dialogue: QemuDialogue,
    tell: (event: PrimaryEvent) => void,
    now: number,
    stopwatch: () => number,
  ) {
    this.#config = config;
    this.#txn = txn;
    this.#dialogue = dialogue;
    this.#tell = tell;
    this.#now = now;
    this.#stopwatch = stopwatch;
    this.compression = new CompressionControl(config.compression, txn, this.counters);
    this.#forwarder = this.compression.forwarder;
    this.#held = new HeldCheckpoint(this.#forwarder, config.maxInFlightBytes);
    this.firstPass = new FirstPass(this.#parser, dialogue, config, now);
  }

  /** Bytes of QEMU's stream taken so far. */
  get offset(): number {
    return this.#parser.streamOffset;
  }
  /** The parser's place in the stream, in words. */
  get place(): string {
    return this.#parser.place;
  }
  /** Whether QEMU has described a full state. */
  get isDescribed(): boolean {
    return this.#isDescribed;
  }
  /** True while a checkpoint is read, or has been read, and not forwarded. */
  get holding(): boolean {
    return this.#held.holding;
  }

  /** Takes bytes of the stream, see {@link Primary.receiveStream}. */
  receive(bytes: Uint8Array, start: number, end: number, now: number): number {
    this.#now = now;
    this.firstPass.heard(now);
    this.#held.tick(now);
    let at = start;
    while (at < end && !this.digests.isPending) {
      this.settle();
      this.#held.open(bytes, this.#parser.streamOffset - at);
      const next = this.#parser.parse(bytes, at, end);
      this.#held.close(next);
      // Not a whole record yet, or the end of a stream.
      if (next === at) break;
      at = next;
    }
    return at;
  }

  /** Whether the peer has a replica whose pages nothing is known of. */
  get #wantsDigests(): boolean {
    return !this.#forwarder.comparable && this.#txn.transaction > 0 && this.#txn.answersDigests;
  }

  /** Takes a part of the replica's digests. */
  receiveDigests(payload: Uint8Array, last: boolean): void {
    const all = this.digests.receive(payload, last);
    // The session may have been left meanwhile.
    if (all === "more" || this.#waiting === undefined || !this.#txn.ready) return;
    if (all !== "other") this.#forwarder.setDigests(all, this.#waiting.blocks);
    this.#beginFull(this.#waiting);
  }

  /** The RAM's blocks are known: its pages follow. */
  #beginFull({ blocks, endOffset }: BlocksEvent): void {
    this.#waiting = undefined;
    this.compression.beginFull();
    this.#forwarder.beginFull(blocks, this.#parser.pageBytes, endOffset);
    this.#forwardEvents();
  }

  /** The channel was read, and nothing was there, see {@link FirstPass.foundEmpty}. */
  foundEmpty(unparsedBytes: number, now: number): void {
    this.#now = now;
    this.firstPass.foundEmpty(unparsedBytes, now);
  }

  /** Forwards a checkpoint that has been read; QEMU has its answer by now. */
  settle(): void {
    if (!this.#held.read) return;
    this.#held.forward();
    this.#commitCheckpoint();
    this.settling.add(this.#stopwatch() - this.#readAt);
  }

  /** The stream ended, see {@link Primary.endOfStream}. */
  end(unparsedBytes: number, now: number): void {
    this.#now = now;
    this.settle();
    this.#held.drop();
    this.#dialogue.end();
    const offset = this.#parser.streamOffset + unparsedBytes;
    if (offset === 0) throw noStream();
    if (this.#dialogue.mayBeColo) {
      this.#forwarder.cancel();
      const place = this.#dialogue.isColo ? this.#parser.place : undefined;
      throw brokenOff(place, offset, this.#txn.transaction);
    }
    try {
      this.#parser.finish(unparsedBytes);
    } catch (error) {
      this.#forwarder.cancel();
      throw this.#dialogue.isSnapshots ? brokenSnapshot(this.#parser.place, error) : error;
    }
  }

  /** Drops the open transaction, if there is one: the session ends here. */
  cancel(): void {
    this.#held.drop();
    if (this.#txn.open) this.#txn.cancel();
  }

  /** Lets time pass. */
  tick(now: number): void {
    this.#held.tick(now);
  }

  /** Sends recorded events with the open transaction, if there is one. */
  #forwardEvents(): void {
    if (this.#config.taps === undefined || !this.#txn.open) return;
    for (const pieces of this.#config.taps.takeEvents()) this.#forwarder.sendEvent(pieces);
  }

  /**
   * The VM stands still: its output until now belongs to the open transaction. Called for a
   * checkpoint (after VMSTATE_SEND) and for a full stream (after its last byte).
   */
  #closeEpoch(): void {
    const taps = this.#config.taps;
    if (taps === undefined) return;
    taps.drain();
    taps.closeEpoch(this.#txn.transaction);
    this.#forwardEvents();
  }

  // Called by the parser:

  event(event: StreamEvent): void {
    switch (event.kind) {
      case "header":
        this.#dialogue.begin();
        this.firstPass.opened();
        this.#state.begin(event.offset);
        return this.#forwarder.beginStream(event.offset);
      case "configuration":
        return checkConfiguration(event);
      case "command":
        return this.#command(event.command, event.data);
      case "ram-blocks":
        if (!this.#wantsDigests) return this.#beginFull(event);
        this.#waiting = event;
        this.digests.want(event.blocks, this.#parser.pageBytes);
        return this.#tell({ kind: "wants-digests" });
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

  page(record: RamRecord): void {
    this.#state.record(record);
    this.#held.page(record);
  }

  mark(flag: number, offset: number): void {
    throw unsupportedMark(flag, offset);
  }

  #command(command: number, data: Uint8Array): void {
    switch (command) {
      case COMMAND.MIG_CMD_OPEN_RETURN_PATH:
        return this.#dialogue.openReturnPath();
      case COMMAND.MIG_CMD_PING:
        return this.#dialogue.ping(data);
      case COMMAND.MIG_CMD_ENABLE_COLO:
        return this.#dialogue.enableColo();
    }
  }

  #fullComplete(endOffset: number): void {
    if (!this.#txn.open) {
      throw new WireError("migration", endOffset, "bad-order", "a stream without any RAM");
    }
    this.firstPass.completed();
    this.counters.stateBytes += this.#state.end(endOffset);
    this.#forwarder.end(endOffset);
    this.compression.endFull();
    this.#closeEpoch();
    this.#dialogue.fullSent(this.#txn.commit(this.#now));
  }

  #coloMessage(message: number, endOffset: number): void {
    switch (message) {
      case COLO_MESSAGE.CHECKPOINT_REQUEST:
        if (!this.#dialogue.requested) this.#tell({ kind: "colo" });
        if (this.#dialogue.isVmPaused) this.#tell({ kind: "paused" });
        this.#forwarder.forgetDigests();
        return this.#dialogue.request();
      case COLO_MESSAGE.VMSTATE_SEND: {
        this.#dialogue.stopped(this.#now);
        this.#state.begin(endOffset);
        this.settle();
        const work = this.compression.beginCheckpoint(this.#now);
        this.#forwarder.beginCheckpoint(endOffset);
        if (work && this.#config.commit === "async") {
          this.#held.begin(endOffset, this.#now);
        }
        this.#closeEpoch();
        return;
      }
    }
  }

  #checkpointComplete(endOffset: number): void {
    this.counters.stateBytes += this.#state.end(endOffset);
    this.#readAt = this.#now;
    this.#dialogue.received(this.#now);
    this.#checkpointEnd = endOffset;
    if (!this.#held.complete(endOffset)) this.#commitCheckpoint();
    if (this.#config.commit === "async") this.#dialogue.loaded(this.#now);
  }

  #commitCheckpoint(): void {
    this.#forwarder.end(this.#checkpointEnd);
    const transaction = this.#txn.commit(this.#readAt);
    this.compression.sent(transaction);
    if (this.#config.commit === "sync") this.#dialogue.loadedAtAck(transaction);
  }
}
