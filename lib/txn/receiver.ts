import { FrameDecoder } from "./frame_decoder.ts";
import type { FrameVisitor } from "./frame_visitor.ts";
import { decodeLeave } from "./leave.ts";
import { PayloadSum } from "./payload_sum.ts";
import { SessionClock } from "./session_clock.ts";
import { encodeRefusal } from "./refusal.ts";
import type { TransactionVisitor } from "./transaction_visitor.ts";
import {
  agreedFeatures,
  decodeHello,
  encodeHello,
  FEATURE,
  type Hello,
  OFFERED_FEATURES,
  PROTOCOL_VERSION,
} from "./hello.ts";
import { checkNumbers, checkPlace, maySend } from "./frame_gate.ts";
import { encodeHeader, type FrameHeader } from "./frame_header.ts";
import type { ReceiverState } from "./frame_rules.ts";
import { BEGIN_FLAG, DIGEST_LAST, MAX_DISK_QUERIES, type NackReason, TXN } from "./wire.ts";
import { refuse } from "./wire_fault.ts";

/** How a receiver presents itself, and how patient it is. */
export interface ReceiverConfig {
  readonly heartbeatMs: number;
  readonly graceMs: number;
  readonly maxTransactionBytes: number;
  /** Last committed transaction of the replica; 0 if there is none. */
  readonly committed: number;
  readonly software: string;
  /** Whether INPUT is taken. */
  readonly takesInputs?: boolean;
  /** Whether pages of a whole stream that builds on nothing do not count against the limit. */
  readonly storesPages?: boolean;
  /**
   * Looks at who comes, before it is answered; all are taken by default.
   *
   * @throws {WireError} for one that is not to be admitted: no session has begun.
   */
  readonly admit?: (hello: Hello, offset: number) => void;
}

/**
 * The receiver's half of ft-transaction, without I/O or clock.
 *
 * ```text
 * hello ──HELLO──► idle ──BEGIN──► open ──COMMIT, CANCEL──► idle
 *                    ├──DIGEST_QUERY──► telling ──the last DIGEST──► idle
 *                    ├──HANDOVER──► handover ──ACK──► over
 *                    └──LEAVE, in telling too──► over
 * ```
 *
 * HANDOVER and LEAVE are the last that a sender says. What stands behind them is taken and means
 * nothing, whatever it is: it cannot undo them.
 */
export class TxnReceiver implements FrameVisitor {
  readonly #options: ReceiverConfig;
  readonly #visitor: TransactionVisitor;
  readonly #decoder = new FrameDecoder(true);
  #state: ReceiverState = "hello";
  #output: Uint8Array[] = [];
  #transaction: number;
  #acknowledged: number;
  /** What both ends have offered. */
  #agreed = 0;
  #sequence = 0;
  readonly #sum = new PayloadSum();
  #longestSilenceMs = 0;
  readonly #clock: SessionClock;
  #peer: Hello | undefined;
  /** Queries of disks without an answer. */
  #diskQueries = 0;
  /** An EVENT's payload that has not all come. */
  #event: { readonly bytes: Uint8Array; filled: number; readonly offset: number } | undefined;

  constructor(options: ReceiverConfig, visitor: TransactionVisitor, now: number) {
    this.#options = options;
    this.#visitor = visitor;
    this.#transaction = this.#acknowledged = options.committed;
    this.#clock = new SessionClock(options, now);
  }

  get peer(): Hello | undefined {
    return this.#peer;
  }
  /** True while a transaction is open: its payload is not to be trusted. */
  get open(): boolean {
    return this.#state === "open";
  }
  /** The transaction that is open, or was last. */
  get transaction(): number {
    return this.#transaction;
  }
  /** True from HANDOVER to its ACK: the VM is not ours yet. */
  get handingOver(): boolean {
    return this.#state === "handover";
  }
  get offset(): number {
    return this.#decoder.offset;
  }

  /**
   * Takes bytes from the peer.
   *
   * @returns One past the last byte taken; the rest must be presented again.
   * @throws {WireError} where the peer breaks the protocol; say so with {@link nack} and close.
   */
  receive(bytes: Uint8Array, start: number, end: number, now: number): number {
    this.#clock.tick(now);
    this.#longestSilenceMs = Math.max(this.#longestSilenceMs, this.#clock.silentMs);
    this.#clock.heard(now);
    return this.#decoder.decode(bytes, start, end, this);
  }

  /** Lets time pass: heartbeats are sent. @returns Milliseconds of silence beyond grace, or 0. */
  tick(now: number): number {
    this.#clock.tick(now);
    if (this.#state === "over") return 0;
    if (maySend("receiver", this.#state, TXN.HEARTBEAT) && this.#clock.mustSpeak(this.#peer)) {
      this.#frame(TXN.HEARTBEAT, 0, 0);
    }
    return this.#clock.isLost ? this.#clock.silentMs : 0;
  }

  /** The longest time between two pieces that were read, in milliseconds. */
  get longestSilenceMs(): number {
    return this.#longestSilenceMs;
  }

  /** Counts silence from now on: until now nobody listened. */
  listenFrom(now: number): void {
    this.#clock.heard(now);
  }

  /** Tells the sender that the transaction is applied, whole. */
  ack(transaction: number): void {
    this.#frame(TXN.ACK, 0, transaction);
    this.#acknowledged = transaction;
    if (this.#state === "handover") this.#state = "over";
  }

  /** Tells the sender that its leaving is known, where it waits for that. */
  left(): void {
    if ((this.#agreed & FEATURE.farewell) !== 0) this.#frame(TXN.LEFT, 0, 0);
  }

  /** Refuses. The sender gives up when it reads it. */
  nack(transaction: number, reason: NackReason, text: string): void {
    this.#frame(TXN.NACK, 0, transaction, encodeRefusal(reason, text));
  }

  /** Answers DIGEST_QUERY, a part at a time; the payload is passed on as it is. */
  digests(payload: Uint8Array, last: boolean): void {
    // The sender has left meanwhile.
    if (this.#state === "over") return;
    this.#frame(TXN.DIGEST, last ? DIGEST_LAST : 0, 0, payload);
    if (last) this.#state = "idle";
  }

  /** Answers the oldest DISK_QUERY, a part at a time; the payload is passed on as it is. */
  diskDigests(payload: Uint8Array, last: boolean): void {
    if (this.#state === "over") return;
    if (last) this.#diskQueries--;
    this.#frame(TXN.DISK_DIGEST, last ? DIGEST_LAST : 0, 0, payload);
  }

  /** Takes what is to be written, in order. */
  takeOutput(): Uint8Array[] {
    const output = this.#output;
    if (output.length > 0) this.#output = [];
    return output;
  }

  get isOver(): boolean {
    return this.#state === "handover" || this.#state === "over";
  }

  check(header: FrameHeader, offset: number): void {
    checkPlace("receiver", this.#state, header, this.#agreed, offset);
    checkNumbers(header, this.#transaction, this.#acknowledged, this.#sequence, offset);
    // That VM may have run since.
    if (header.command === TXN.HANDOVER && header.transaction === this.#options.committed) {
      const what = `HANDOVER of transaction ${header.transaction}, of an earlier session`;
      refuse(offset + 8, "bad-order", what);
    }
  }

  streamed(header: FrameHeader, offset: number): void {
    this.#sequence++;
    if (header.command !== TXN.EVENT) return;
    this.#event = { bytes: new Uint8Array(header.lengthBytes), filled: 0, offset };
  }

  piece(bytes: Uint8Array, at: number, end: number): void {
    const piece = at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end);
    this.#sum.add(piece);
    const event = this.#event;
    if (event === undefined) return this.#visitor.payload(bytes, at, end);
    event.bytes.set(piece, event.filled);
    event.filled += piece.length;
    if (event.filled < event.bytes.length) return;
    this.#event = undefined;
    this.#visitor.event(event.bytes, event.offset);
  }

  frame(header: FrameHeader, payload: Uint8Array, offset: number): void {
    switch (header.command) {
      case TXN.HELLO:
        return this.#hello(payload, offset);
      case TXN.RELEASED:
        return this.#visitor.released(header.transaction);
      case TXN.INPUT:
        return this.#visitor.input(header.transaction, payload, offset);
      case TXN.BEGIN:
        return this.#begin(header);
      case TXN.COMMIT:
        this.#sum.check(payload, header.transaction, offset);
        this.#state = "idle";
        return this.#visitor.commit(header.transaction);
      case TXN.CANCEL:
        this.#state = "idle";
        this.#transaction--;
        return this.#visitor.cancel(header.transaction);
      case TXN.HANDOVER:
        this.#state = "handover";
        return this.#visitor.handover(header.transaction);
      case TXN.LEAVE: {
        const leave = decodeLeave(payload, offset);
        this.#state = "over";
        return this.#visitor.leave(leave);
      }
      case TXN.DIGEST_QUERY: {
        this.#state = "telling";
        const view = new DataView(payload.buffer, payload.byteOffset, 8);
        return this.#visitor.digestQuery(view.getUint32(0), view.getUint32(4));
      }
      case TXN.DISK_QUERY:
        if (++this.#diskQueries > MAX_DISK_QUERIES) {
          refuse(offset, "bad-order", `more than ${MAX_DISK_QUERIES} queries of disks at a time`);
        }
        return this.#visitor.diskQuery(payload, offset);
    }
  }

  #hello(payload: Uint8Array, offset: number): void {
    const hello = decodeHello(payload, offset);
    this.#options.admit?.(hello, offset);
    const { takesInputs, storesPages } = this.#options;
    const features = OFFERED_FEATURES | (takesInputs ? FEATURE.inputs : 0) |
      (storesPages ? FEATURE.storesPages : 0);
    this.#agreed = agreedFeatures(hello.features, features);
    this.#peer = hello;
    this.#frame(
      TXN.HELLO,
      0,
      0,
      encodeHello({
        version: PROTOCOL_VERSION,
        features,
        session: hello.session,
        heartbeatMs: this.#options.heartbeatMs,
        graceMs: this.#options.graceMs,
        committed: this.#options.committed,
        maxTransactionBytes: this.#options.maxTransactionBytes,
        software: this.#options.software,
      }),
    );
    this.#state = "idle";
    this.#visitor.hello(hello);
  }

  #begin(header: FrameHeader): void {
    const full = (header.flags & BEGIN_FLAG.FULL) !== 0;
    const based = (header.flags & BEGIN_FLAG.BASED) !== 0;
    this.#state = "open";
    this.#transaction = header.transaction;
    this.#sequence = 1;
    this.#sum.begin();
    this.#visitor.begin(header.transaction, { full, based });
  }

  #frame(command: number, flags: number, transaction: number, payload?: Uint8Array): void {
    this.#output.push(
      encodeHeader({
        command,
        flags,
        sequence: 0,
        transaction,
        lengthBytes: payload?.length ?? 0,
      }),
    );
    if (payload !== undefined && payload.length > 0) this.#output.push(payload);
    this.#clock.said();
  }
}
