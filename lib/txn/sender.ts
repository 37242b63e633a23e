import { crc32 } from "node:zlib";
import { StateError } from "../errors.ts";
import { DigestQueries } from "./digest_queries.ts";
import { FrameDecoder } from "./frame_decoder.ts";
import type { FrameVisitor } from "./frame_visitor.ts";
import { FrameWriter } from "./frame_writer.ts";
import type { PackingCounters } from "./packing.ts";
import { encodeLeave, type Leave } from "./leave.ts";
import { PeerOffers } from "./peer_offers.ts";
import { decodeRefusal } from "./refusal.ts";
import type { InFlight, SenderConfig, SenderEvent, SentBytes } from "./sender_config.ts";
import {
  decodeHello,
  encodeHello,
  heartbeatPeriodMs,
  type Hello,
  OFFERED_FEATURES,
  PROTOCOL_VERSION,
} from "./hello.ts";
import { BEGIN_FLAG, type FrameHeader, MAX_PAYLOAD_BYTES, TXN } from "./wire.ts";
import { refuse } from "./wire_fault.ts";
import { HAS_ZSTD } from "./zstd_context.ts";

export type { SenderConfig, SenderEvent, SentBytes } from "./sender_config.ts";

type State = "hello" | "ready" | "open" | "handover" | "leaving" | "done";

/** BEGIN's flags: whether the transaction is a whole state, and whether it goes by the replica. */
const BEGIN_FLAGS = {
  "checkpoint": 0,
  "full": BEGIN_FLAG.FULL,
  "full-on-replica": BEGIN_FLAG.FULL | BEGIN_FLAG.BASED,
} as const;

/**
 * The sender's half of ft-transaction, without I/O or clock.
 *
 * ```text
 * hello ──HELLO──► ready ──begin()──► open ──commit()/cancel()──► ready
 *                    ├──handover()──► handover ──ACK──► done
 *                    └──leave()──► leaving ──LEFT──► done
 * ```
 *
 * Output is a list of views: headers of its own and the payloads given to {@link forward}, which
 * stay the caller's and must not change until they have been written, or packed.
 */
export class TxnSender implements FrameVisitor {
  readonly #options: SenderConfig;
  readonly #decoder = new FrameDecoder(false);
  #state: State = "hello";
  readonly #writer = new FrameWriter();
  #events: SenderEvent[] = [];
  #peer: Hello | undefined;
  #offers = new PeerOffers();
  #transaction = 0;
  #payloadBytes = 0;
  #checksum = 0;
  #inFlight: InFlight[] = [];
  #heardAt: number;
  #saidAt: number;
  #now: number;
  #lost = false;
  readonly #queries = new DigestQueries();

  constructor(options: SenderConfig, now: number) {
    this.#options = options;
    this.#now = this.#heardAt = this.#saidAt = now;
    const hello = encodeHello({
      version: PROTOCOL_VERSION,
      features: OFFERED_FEATURES,
      session: options.session,
      heartbeatMs: options.heartbeatMs,
      graceMs: options.graceMs,
      committed: 0,
      maxTransactionBytes: 0,
      software: options.software,
      fields: options.fields,
    });
    this.#frame(TXN.HELLO, 0, 0, hello);
  }

  /** What the peer said of itself, once it has. */
  get peer(): Hello | undefined {
    return this.#peer;
  }
  /** True while a transaction is open. */
  get open(): boolean {
    return this.#state === "open";
  }
  get ready(): boolean {
    return this.#state === "ready";
  }
  /** True from HANDOVER to its ACK: nobody here knows whose VM it is. */
  get handingOver(): boolean {
    return this.#state === "handover";
  }
  /** The transaction that is open, or was last. */
  get transaction(): number {
    return this.#transaction;
  }
  /** Transactions that were committed here and not yet acknowledged, oldest first. */
  get inFlight(): readonly InFlight[] {
    return this.#inFlight;
  }

  /** Bytes made for the peer, by what they are for. */
  get sent(): SentBytes {
    return this.#writer.sent;
  }
  /** Whether frames are packed from here on, if the peer takes packed ones at all. */
  set packing(packs: boolean) {
    this.#writer.packing = packs;
  }
  /** What packing has done; undefined where the peer or this end does not pack. */
  get packed(): PackingCounters | undefined {
    return this.#writer.packed;
  }

  /** Opens the next transaction. `base` says what pages that go unmentioned hold. */
  begin(kind: keyof typeof BEGIN_FLAGS): number {
    this.#expect("ready", "begin");
    this.#state = "open";
    this.#transaction++;
    this.#payloadBytes = 0;
    this.#checksum = 0;
    this.#writer.begin(BEGIN_FLAGS[kind], this.#transaction);
    this.#saidAt = this.#now;
    return this.#transaction;
  }

  /** Sends bytes of the stream as they are; long ones in several frames. */
  forward(bytes: Uint8Array): void {
    this.#expect("open", "forward");
    const most = this.#writer.mostPayloadBytes;
    for (let at = 0; at < bytes.length; at += most) {
      const piece = bytes.length <= most ? bytes : bytes.subarray(at, at + most);
      this.#checksum = crc32(piece, this.#checksum);
      this.#payloadBytes += piece.length;
      this.#writer.sent.stream += piece.length;
      this.#frame(TXN.CONTINUE, 0, this.#transaction, piece);
    }
  }

  /**
   * Sends held output of the VM with the open transaction.
   *
   * @param pieces One EVENT payload of at most MAX_PAYLOAD_BYTES, in pieces; the caller's, as in
   *   {@link forward}.
   * @throws {StateError} where the peer takes no events: with taps there is no session then.
   */
  event(pieces: readonly Uint8Array[]): void {
    this.#expect("open", "event");
    this.#offers.require("events");
    let lengthBytes = 0;
    for (const piece of pieces) {
      this.#checksum = crc32(piece, this.#checksum);
      lengthBytes += piece.length;
    }
    if (lengthBytes > MAX_PAYLOAD_BYTES) throw new StateError(`an event of ${lengthBytes} bytes`);
    this.#payloadBytes += lengthBytes;
    this.#writer.sent.events += lengthBytes;
    this.#header(TXN.EVENT, 0, this.#transaction, lengthBytes);
    for (const piece of pieces) this.#writer.piece(piece);
  }

  /** Whether the peer keeps what the world sends to the guest, and it may be said now. */
  get takesInputs(): boolean {
    return (this.#state === "ready" || this.#state === "open") && this.#offers.has("inputs");
  }

  /**
   * Copies to the peer what the world sent to the guest; at any time, where {@link takesInputs}.
   *
   * @param transaction The one whose state will have it.
   * @param pieces One INPUT payload of at most MAX_CONTROL_BYTES, none of them empty; the caller's,
   *   as in {@link forward}.
   */
  input(transaction: number, pieces: readonly Uint8Array[]): void {
    if (!this.takesInputs) throw new StateError(`input while ${this.#state}`);
    const lengthBytes = pieces.reduce((sum, { length }) => sum + length, 0);
    this.#writer.sent.events += lengthBytes;
    this.#header(TXN.INPUT, 0, transaction, lengthBytes);
    for (const piece of pieces) this.#writer.piece(piece);
  }

  /**
   * Says that the output held for a transaction, and for all before it, has been let go; nothing to a
   * peer that keeps none of it.
   */
  released(transaction: number): void {
    // Closed over unread bytes, the secondary's connection would cost us its answer to LEAVE.
    if (this.#state === "leaving" || this.#state === "done") return;
    if (!this.#offers.has("events")) return;
    this.#frame(TXN.RELEASED, 0, transaction);
  }

  /** Ends the transaction: `u32 CRC-32 of all its payload, u64 payload bytes`. */
  commit(now: number): number {
    this.#expect("open", "commit");
    const payload = new Uint8Array(12);
    const view = new DataView(payload.buffer);
    view.setUint32(0, this.#checksum);
    view.setBigUint64(4, BigInt(this.#payloadBytes));
    this.#frame(TXN.COMMIT, 0, this.#transaction, payload);
    this.#state = "ready";
    this.#inFlight.push({
      transaction: this.#transaction,
      bytes: this.#payloadBytes,
      committedAt: now,
    });
    return this.#transaction;
  }

  /** Drops the open transaction; its id is used again. */
  cancel(): void {
    this.#expect("open", "cancel");
    this.#frame(TXN.CANCEL, 0, this.#transaction);
    this.#transaction--;
    this.#state = "ready";
  }

  /** Gives the VM away: the secondary is to activate the last committed transaction. */
  handover(): void {
    this.#expect("ready", "handover");
    this.#frame(TXN.HANDOVER, 0, this.#transaction);
    this.#state = "handover";
  }

  /**
   * Ends the session on purpose, which is no loss; what is open is cancelled. The answer is the event
   * `left`; a peer without that feature is told no reason, and closes the connection instead.
   */
  leave(leave: Leave): void {
    if (this.#state === "open") this.cancel();
    this.#expect("ready", "leave");
    this.#frame(TXN.LEAVE, 0, 0, this.answersLeave ? encodeLeave(leave) : undefined);
    this.#state = "leaving";
  }

  /** Whether the peer answers LEAVE. */
  get answersLeave(): boolean {
    return this.#offers.has("farewell");
  }

  /** Whether the peer tells the digests of the replica's pages. */
  get answersDigests(): boolean {
    return this.#offers.has("digests");
  }

  /** Asks for them, under a seed of two `u32`. @throws {StateError} unless {@link answersDigests}. */
  queryDigests(seedLow: number, seedHigh: number): void {
    this.#expect("ready", "query digests");
    this.#offers.require("digests");
    this.#frame(TXN.DIGEST_QUERY, 0, 0, this.#queries.askPages(seedLow, seedHigh));
  }

  /** Whether one more query of a disk may be sent: the peer answers them, and not too many wait. */
  get mayQueryDisk(): boolean {
    return (this.#state === "ready" || this.#state === "open") &&
      this.#offers.has("diskDigests") && this.#queries.mayQueryDisk;
  }

  /**
   * Asks for the digests of a disk's chunks, at any time; answers come in the order of the queries.
   *
   * @param payload A DISK_QUERY payload, see `encodeDiskQuery`.
   */
  queryDisk(payload: Uint8Array): void {
    if (!this.mayQueryDisk) throw new StateError(`query a disk while ${this.#state}`);
    this.#queries.askDisk();
    this.#frame(TXN.DISK_QUERY, 0, 0, payload);
  }

  /**
   * Takes bytes from the peer.
   *
   * @returns One past the last byte taken; the rest must be presented again.
   * @throws {WireError} where the peer breaks the protocol, or refuses (`refused`, its reason).
   */
  receive(bytes: Uint8Array, start: number, end: number, now: number): number {
    this.#now = now;
    this.#heardAt = now;
    return this.#decoder.decode(bytes, start, end, this);
  }

  /** Lets time pass: heartbeats are sent, silence is noticed. Call it often. */
  tick(now: number): void {
    this.#now = now;
    if (this.#state === "leaving" || this.#state === "done") return;
    if (
      this.#state !== "hello" && now - this.#saidAt >= heartbeatPeriodMs(this.#options, this.#peer)
    ) {
      this.#frame(TXN.HEARTBEAT, 0, 0);
    }
    const silentMs = now - this.#heardAt;
    if (!this.#lost && silentMs > this.#options.graceMs) {
      this.#lost = true;
      this.#events.push({ kind: "lost", silentMs });
    }
  }

  /** Takes what is to be written, in order, see {@link FrameWriter.take}. */
  takeOutput(): Uint8Array[] {
    return this.#writer.take();
  }

  /** Takes what happened since the last call. */
  takeEvents(): SenderEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }

  streamed(header: FrameHeader, offset: number): void {
    refuse(offset, "bad-order", `the receiver sent command ${header.command}`);
  }

  piece(): void {}

  frame(header: FrameHeader, payload: Uint8Array, offset: number): void {
    if (header.command === TXN.NACK) throw decodeRefusal(payload, header.transaction, offset);
    if (this.#state === "hello") {
      if (header.command !== TXN.HELLO) {
        refuse(offset, "bad-order", `command ${header.command} before HELLO`);
      }
      this.#peer = decodeHello(payload, offset);
      if (this.#peer.session.some((byte, i) => byte !== this.#options.session[i])) {
        refuse(offset, "bad-value", "HELLO answers another session");
      }
      this.#transaction = this.#peer.committed;
      const clock = this.#options.packingClock;
      this.#offers = new PeerOffers(this.#peer.features);
      if (clock !== undefined && HAS_ZSTD && this.#offers.has("packed")) {
        this.#writer.mayPack(clock);
      }
      this.#state = "ready";
      this.#events.push({ kind: "ready", hello: this.#peer });
      return;
    }
    switch (header.command) {
      case TXN.HEARTBEAT:
        return;
      case TXN.ACK:
        return this.#acked(header, offset);
      case TXN.LEFT:
        if (this.#state !== "leaving") refuse(offset, "bad-order", "a LEFT without a LEAVE");
        this.#state = "done";
        this.#events.push({ kind: "left" });
        return;
      case TXN.DIGEST:
        this.#events.push(this.#queries.pagesAnswered(header, payload, offset));
        return;
      case TXN.DISK_DIGEST:
        this.#events.push(this.#queries.diskAnswered(header, payload, offset));
        return;
      default:
        refuse(offset, "bad-order", `the receiver sent command ${header.command}`);
    }
  }

  #acked(header: FrameHeader, offset: number): void {
    const oldest = this.#inFlight.shift();
    if (oldest !== undefined && oldest.transaction === header.transaction) {
      const roundTripMs = this.#now - oldest.committedAt;
      this.#events.push({ kind: "acked", transaction: header.transaction, roundTripMs });
    } else if (
      oldest === undefined && this.#state === "handover" &&
      header.transaction === this.#transaction
    ) {
      this.#state = "done";
      this.#events.push({ kind: "handed-over" });
    } else {
      refuse(
        offset,
        "bad-order",
        `an ACK of transaction ${header.transaction}, awaited was ${oldest?.transaction ?? "none"}`,
      );
    }
  }

  #frame(command: number, flags: number, transaction: number, payload?: Uint8Array): void {
    this.#writer.frame(command, flags, transaction, payload);
    this.#saidAt = this.#now;
  }

  #header(command: number, flags: number, transaction: number, lengthBytes: number): void {
    this.#writer.header(command, flags, transaction, lengthBytes);
    this.#saidAt = this.#now;
  }

  #expect(state: State, what: string): void {
    if (this.#state !== state) throw new StateError(`${what} while ${this.#state}`);
  }
}
