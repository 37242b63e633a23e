import { crc32 } from "node:zlib";
import { WireError } from "../errors.ts";
import { FrameDecoder } from "./frame_decoder.ts";
import type { FrameVisitor } from "./frame_visitor.ts";
import { decodeLeave } from "./leave.ts";
import { encodeRefusal } from "./refusal.ts";
import type { TransactionVisitor } from "./transaction_visitor.ts";
import {
  decodeHello,
  encodeHello,
  FEATURE,
  heartbeatPeriodMs,
  type Hello,
  OFFERED_FEATURES,
  PROTOCOL_VERSION,
} from "./hello.ts";
import {
  BEGIN_FLAG,
  DIGEST_LAST,
  encodeHeader,
  type FrameHeader,
  MAX_DISK_QUERIES,
  type NackReason,
  TXN,
} from "./wire.ts";
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
  /**
   * Looks at who comes, before it is answered; all are taken by default.
   *
   * @throws {WireError} for one that is not to be admitted: no session has begun.
   */
  readonly admit?: (hello: Hello, offset: number) => void;
}

type State = "hello" | "idle" | "open" | "over";

/**
 * The receiver's half of ft-transaction, without I/O or clock.
 *
 * ```text
 * hello ──HELLO──► idle ──BEGIN──► open ──COMMIT/CANCEL──► idle
 *                    └──HANDOVER, LEAVE──► over
 * ```
 */
export class TxnReceiver implements FrameVisitor {
  readonly #options: ReceiverConfig;
  readonly #visitor: TransactionVisitor;
  readonly #decoder = new FrameDecoder(true);
  #state: State = "hello";
  #output: Uint8Array[] = [];
  #transaction: number;
  #sequence = 0;
  #payloadBytes = 0;
  #checksum = 0;
  #heardAt: number;
  #longestSilenceMs = 0;
  #saidAt: number;
  #now: number;
  #peer: Hello | undefined;
  /** Queries of disks without an answer. */
  #diskQueries = 0;
  /** An EVENT's payload that has not all come. */
  #event: { readonly bytes: Uint8Array; filled: number; readonly offset: number } | undefined;

  constructor(options: ReceiverConfig, visitor: TransactionVisitor, now: number) {
    this.#options = options;
    this.#visitor = visitor;
    this.#transaction = options.committed;
    this.#now = this.#heardAt = this.#saidAt = now;
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
    this.#now = now;
    this.#longestSilenceMs = Math.max(this.#longestSilenceMs, now - this.#heardAt);
    this.#heardAt = now;
    return this.#decoder.decode(bytes, start, end, this);
  }

  /** Lets time pass: heartbeats are sent. @returns Milliseconds of silence beyond grace, or 0. */
  tick(now: number): number {
    this.#now = now;
    if (this.#state === "over") return 0;
    if (
      this.#state !== "hello" && now - this.#saidAt >= heartbeatPeriodMs(this.#options, this.#peer)
    ) {
      this.#frame(TXN.HEARTBEAT, 0, 0);
    }
    const silentMs = now - this.#heardAt;
    return silentMs > this.#options.graceMs ? silentMs : 0;
  }

  /** The longest time between two pieces that were read, in milliseconds. */
  get longestSilenceMs(): number {
    return this.#longestSilenceMs;
  }

  /** Counts silence from now on: until now nobody listened. */
  listenFrom(now: number): void {
    this.#heardAt = now;
  }

  /** Tells the sender that the transaction is applied, whole. */
  ack(transaction: number): void {
    this.#frame(TXN.ACK, 0, transaction);
  }

  /** Tells the sender that its leaving is known, where it waits for that. */
  left(): void {
    if (((this.#peer?.features ?? 0) & FEATURE.farewell) !== 0) this.#frame(TXN.LEFT, 0, 0);
  }

  /** Refuses. The sender gives up when it reads it. */
  nack(transaction: number, reason: NackReason, text: string): void {
    this.#frame(TXN.NACK, 0, transaction, encodeRefusal(reason, text));
  }

  /** Answers DIGEST_QUERY, a part at a time; the payload is passed on as it is. */
  digests(payload: Uint8Array, last: boolean): void {
    this.#frame(TXN.DIGEST, last ? DIGEST_LAST : 0, 0, payload);
  }

  /** Answers the oldest DISK_QUERY, a part at a time; the payload is passed on as it is. */
  diskDigests(payload: Uint8Array, last: boolean): void {
    if (last) this.#diskQueries--;
    this.#frame(TXN.DISK_DIGEST, last ? DIGEST_LAST : 0, 0, payload);
  }

  /** Takes what is to be written, in order. */
  takeOutput(): Uint8Array[] {
    const output = this.#output;
    if (output.length > 0) this.#output = [];
    return output;
  }

  streamed(header: FrameHeader, offset: number): void {
    this.#inTransaction(header, offset);
    if (header.command !== TXN.EVENT) return;
    if (header.lengthBytes === 0) refuse(offset, "bad-length", "an EVENT without a payload");
    this.#event = { bytes: new Uint8Array(header.lengthBytes), filled: 0, offset };
  }

  piece(bytes: Uint8Array, at: number, end: number): void {
    const piece = at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end);
    this.#checksum = crc32(piece, this.#checksum);
    this.#payloadBytes += end - at;
    const event = this.#event;
    if (event === undefined) return this.#visitor.payload(bytes, at, end);
    event.bytes.set(piece, event.filled);
    event.filled += piece.length;
    if (event.filled < event.bytes.length) return;
    this.#event = undefined;
    this.#visitor.event(event.bytes, event.offset);
  }

  frame(header: FrameHeader, payload: Uint8Array, offset: number): void {
    if (this.#state === "hello") return this.#hello(header, payload, offset);
    switch (header.command) {
      case TXN.HEARTBEAT:
        return;
      case TXN.RELEASED:
        return this.#visitor.released(header.transaction);
      case TXN.INPUT:
        if (!this.#options.takesInputs || this.#state === "over") {
          refuse(offset, "bad-order", "an INPUT that was not asked for");
        }
        return this.#visitor.input(header.transaction, payload, offset);
      case TXN.BEGIN:
        return this.#begin(header, offset);
      case TXN.COMMIT:
        this.#inTransaction(header, offset);
        return this.#commit(payload, offset);
      case TXN.CANCEL:
        this.#inTransaction(header, offset);
        this.#state = "idle";
        this.#transaction--;
        return this.#visitor.cancel(header.transaction);
      case TXN.HANDOVER:
        if (this.#state !== "idle" || header.transaction !== this.#transaction) {
          refuse(offset, "bad-order", `a HANDOVER of transaction ${header.transaction}`);
        }
        if (header.transaction === 0) refuse(offset, "bad-order", "a HANDOVER of nothing");
        this.#state = "over";
        return this.#visitor.handover(header.transaction);
      case TXN.LEAVE:
        if (this.#state !== "idle") refuse(offset, "bad-order", `a LEAVE while ${this.#state}`);
        this.#state = "over";
        return this.#visitor.leave(decodeLeave(payload, offset));
      case TXN.DIGEST_QUERY: {
        if (this.#state !== "idle") refuse(offset, "bad-order", "a DIGEST_QUERY in a transaction");
        if (payload.length !== 8) refuse(offset, "bad-length", "a DIGEST_QUERY without its seed");
        const view = new DataView(payload.buffer, payload.byteOffset, 8);
        return this.#visitor.digestQuery(view.getUint32(0), view.getUint32(4));
      }
      case TXN.DISK_QUERY:
        if (this.#state === "over") refuse(offset, "bad-order", "a DISK_QUERY behind the end");
        if (++this.#diskQueries > MAX_DISK_QUERIES) {
          refuse(offset, "bad-order", `more than ${MAX_DISK_QUERIES} queries of disks at a time`);
        }
        return this.#visitor.diskQuery(payload, offset);
      default:
        refuse(offset, "bad-order", `the sender sent command ${header.command}`);
    }
  }

  #hello(header: FrameHeader, payload: Uint8Array, offset: number): void {
    if (header.command !== TXN.HELLO) {
      refuse(offset, "bad-order", `command ${header.command} before HELLO`);
    }
    const hello = decodeHello(payload, offset);
    this.#options.admit?.(hello, offset);
    this.#peer = hello;
    this.#state = "idle";
    this.#frame(
      TXN.HELLO,
      0,
      0,
      encodeHello({
        version: PROTOCOL_VERSION,
        features: OFFERED_FEATURES | (this.#options.takesInputs ? FEATURE.inputs : 0),
        session: this.#peer.session,
        heartbeatMs: this.#options.heartbeatMs,
        graceMs: this.#options.graceMs,
        committed: this.#options.committed,
        maxTransactionBytes: this.#options.maxTransactionBytes,
        software: this.#options.software,
      }),
    );
    this.#visitor.hello(this.#peer);
  }

  #begin(header: FrameHeader, offset: number): void {
    if (this.#state !== "idle") refuse(offset, "bad-order", `a BEGIN while ${this.#state}`);
    if (header.transaction !== this.#transaction + 1 || header.sequence !== 0) {
      refuse(
        offset,
        "bad-order",
        `a BEGIN of transaction ${header.transaction} behind ${this.#transaction}`,
      );
    }
    const full = (header.flags & BEGIN_FLAG.FULL) !== 0;
    const based = (header.flags & BEGIN_FLAG.BASED) !== 0;
    if (based && !full) refuse(offset + 3, "bad-value", "a BEGIN with BASED but without FULL");
    this.#state = "open";
    this.#transaction = header.transaction;
    this.#sequence = 1;
    this.#payloadBytes = 0;
    this.#checksum = 0;
    this.#visitor.begin(header.transaction, { full, based });
  }

  #commit(payload: Uint8Array, offset: number): void {
    if (payload.length !== 12) refuse(offset, "bad-length", `a COMMIT of ${payload.length} bytes`);
    const view = new DataView(payload.buffer, payload.byteOffset, 12);
    const bytes = Number(view.getBigUint64(4));
    if (view.getUint32(0) !== this.#checksum || bytes !== this.#payloadBytes) {
      throw new WireError(
        "transaction",
        offset,
        "bad-checksum",
        `transaction ${this.#transaction} arrived damaged: ${this.#payloadBytes} of ${bytes} bytes, ` +
          `CRC-32 ${this.#checksum.toString(16)}, not ${view.getUint32(0).toString(16)}`,
      );
    }
    this.#state = "idle";
    this.#visitor.commit(this.#transaction);
  }

  #inTransaction(header: FrameHeader, offset: number): void {
    if (
      this.#state !== "open" || header.transaction !== this.#transaction ||
      header.sequence !== this.#sequence
    ) {
      refuse(
        offset,
        "bad-order",
        `frame ${header.sequence} of transaction ${header.transaction}, awaited was ` +
          (this.#state === "open"
            ? `frame ${this.#sequence} of transaction ${this.#transaction}`
            : "a BEGIN"),
      );
    }
    this.#sequence++;
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
    this.#saidAt = this.#now;
  }
}
