import { StateError } from "../errors.ts";
import { DigestQueries } from "./digest_queries.ts";
import { FrameDecoder } from "./frame_decoder.ts";
import type { FrameVisitor } from "./frame_visitor.ts";
import { FrameWriter } from "./frame_writer.ts";
import type { PackingCounters } from "./packing.ts";
import { encodeLeave, type Leave } from "./leave.ts";
import { PayloadSum } from "./payload_sum.ts";
import { SessionClock } from "./session_clock.ts";
import { decodeRefusal } from "./refusal.ts";
import {
  BEGIN_FLAGS,
  helloOf,
  type InFlight,
  type SenderConfig,
  type SenderEvent,
  type SentBytes,
} from "./sender_config.ts";
import {
  agreedFeatures,
  decodeHello,
  encodeHello,
  FEATURE,
  type Hello,
  OFFERED_FEATURES,
} from "./hello.ts";
import { checkPlace, isAgreed, maySend } from "./frame_gate.ts";
import type { FrameHeader } from "./frame_header.ts";
import type { SenderState } from "./frame_rules.ts";
import { MAX_EVENT_BYTES, TXN } from "./wire.ts";
import { refuse } from "./wire_fault.ts";

/**
 * The sender's half of ft-transaction, without I/O or clock.
 *
 * ```text
 * hello ──HELLO──► ready ──begin()──► open ──commit(), cancel()──► ready
 *                    ├──queryDigests()──► asking ──the last DIGEST──► ready
 *                    ├──handover()──► handover ──ACK──► done
 *                    └──leave(), in asking and open too──► leaving ──LEFT──► done
 * ```
 *
 * Output is a list of views: headers of its own and the payloads given to {@link forward}, which
 * stay the caller's and must not change until they have been written, or packed.
 */
export class TxnSender implements FrameVisitor {
  readonly #options: SenderConfig;
  readonly #decoder = new FrameDecoder(false);
  #state: SenderState = "hello";
  readonly #writer = new FrameWriter();
  #events: SenderEvent[] = [];
  #peer: Hello | undefined;
  #transaction = 0;
  #acknowledged = 0;
  /** What both ends have offered. */
  #agreed = 0;
  readonly #sum = new PayloadSum();
  #inFlight: InFlight[] = [];
  readonly #clock: SessionClock;
  #isLost = false;
  #isRefused = false;
  readonly #queries = new DigestQueries();

  constructor(options: SenderConfig, now: number) {
    this.#options = options;
    this.#clock = new SessionClock(options, now);
    this.#frame(TXN.HELLO, 0, 0, encodeHello(helloOf(options)));
  }

  /** What the peer said of itself, once it has. */
  get peer(): Hello | undefined {
    return this.#peer;
  }
  /** True while a transaction is open. */
  get open(): boolean {
    return this.#state === "open";
  }
  /** Whether a transaction may begin. */
  get ready(): boolean {
    return this.#state === "ready";
  }
  /** Whether there is a session to {@link leave}. */
  get mayLeave(): boolean {
    // A peer that has refused looks at nothing any more: its answer would be waited for in vain.
    return !this.#isRefused && (this.open || maySend("sender", this.#state, TXN.LEAVE));
  }
  /** True from HANDOVER to its answer: nobody here knows whose VM it is. */
  get handingOver(): boolean {
    return this.#state === "handover" && !this.#isRefused;
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

  /**
   * Opens the next transaction.
   * @param kind Says what pages that go unmentioned hold.
   * @throws {WireError} `bad-value` if there is no number left for it.
   */
  begin(kind: keyof typeof BEGIN_FLAGS): number {
    this.#expect(TXN.BEGIN, "begin");
    if (this.#transaction === Number.MAX_SAFE_INTEGER) {
      refuse(0, "bad-value", `transaction ${this.#transaction} is the last that there can be`);
    }
    this.#state = "open";
    this.#transaction++;
    this.#sum.begin();
    this.#writer.begin(BEGIN_FLAGS[kind], this.#transaction);
    this.#clock.said();
    return this.#transaction;
  }

  /** Sends bytes of the stream as they are; long ones in several frames. */
  forward(bytes: Uint8Array): void {
    this.#expect(TXN.CONTINUE, "forward");
    const most = this.#writer.mostPayloadBytes;
    for (let at = 0; at < bytes.length; at += most) {
      const piece = bytes.length <= most ? bytes : bytes.subarray(at, at + most);
      this.#sum.add(piece);
      this.#writer.sent.stream += piece.length;
      this.#frame(TXN.CONTINUE, 0, this.#transaction, piece);
    }
  }

  /**
   * Sends held output of the VM with the open transaction.
   * @param pieces One EVENT payload of at most MAX_EVENT_BYTES, in pieces; the caller's, as in
   *   {@link forward}.
   */
  event(pieces: readonly Uint8Array[]): void {
    this.#expect(TXN.EVENT, "event");
    let lengthBytes = 0;
    for (const piece of pieces) {
      this.#sum.add(piece);
      lengthBytes += piece.length;
    }
    if (lengthBytes > MAX_EVENT_BYTES) throw new StateError(`an event of ${lengthBytes} bytes`);
    this.#writer.sent.events += lengthBytes;
    this.#header(TXN.EVENT, 0, this.#transaction, lengthBytes);
    for (const piece of pieces) this.#writer.piece(piece);
  }

  /** Whether the peer keeps what the world sends to the guest, and it may be said now. */
  get takesInputs(): boolean {
    return this.#may(TXN.INPUT);
  }

  /**
   * Copies to the peer what the world sent to the guest; at any time, where {@link takesInputs}.
   * @param transaction The one whose state will have it.
   * @param pieces One INPUT payload of at most MAX_INPUT_BYTES, none of them empty; the caller's,
   *   as in {@link forward}.
   */
  input(transaction: number, pieces: readonly Uint8Array[]): void {
    this.#expect(TXN.INPUT, "input");
    const lengthBytes = pieces.reduce((sum, { length }) => sum + length, 0);
    this.#writer.sent.events += lengthBytes;
    this.#header(TXN.INPUT, 0, transaction, lengthBytes);
    for (const piece of pieces) this.#writer.piece(piece);
  }

  /**
   * Says that the output held for an acknowledged transaction, and for all before it, has been let go;
   * nothing to a peer that keeps none of it, or is told nothing more.
   */
  released(transaction: number): void {
    if (!this.#may(TXN.RELEASED)) return;
    if (transaction > this.#acknowledged) {
      throw new StateError(`released ${transaction} behind ${this.#acknowledged}`);
    }
    this.#frame(TXN.RELEASED, 0, transaction);
  }

  /** Ends the transaction. */
  commit(now: number): number {
    this.#expect(TXN.COMMIT, "commit");
    const transaction = this.#transaction;
    this.#frame(TXN.COMMIT, 0, transaction, this.#sum.encode());
    this.#state = "ready";
    this.#inFlight.push({ transaction, bytes: this.#sum.bytes, committedAt: now });
    return transaction;
  }

  /** Drops the open transaction; its id is used again. */
  cancel(): void {
    this.#expect(TXN.CANCEL, "cancel");
    this.#frame(TXN.CANCEL, 0, this.#transaction);
    this.#transaction--;
    this.#state = "ready";
  }

  /** Gives the VM away: the secondary is to activate the last committed transaction. */
  handover(): void {
    this.#expect(TXN.HANDOVER, "handover");
    if (this.#transaction === 0 || this.#transaction !== this.#acknowledged) {
      throw new StateError(`handover of ${this.#transaction} behind ${this.#acknowledged}`);
    }
    this.#frame(TXN.HANDOVER, 0, this.#transaction);
    this.#state = "handover";
  }

  /**
   * Ends the session on purpose, which is no loss; what is open is cancelled. The answer is the event
   * `left`; a peer without that feature is told no reason, and closes the connection instead.
   */
  leave(leave: Leave): void {
    if (this.#state === "open") this.cancel();
    this.#expect(TXN.LEAVE, "leave");
    this.#frame(TXN.LEAVE, 0, 0, this.answersLeave ? encodeLeave(leave) : undefined);
    this.#state = "leaving";
  }

  /** Whether the peer answers LEAVE. */
  get answersLeave(): boolean {
    return (this.#agreed & FEATURE.farewell) !== 0;
  }

  /** Whether the peer tells the digests of the replica's pages. */
  get answersDigests(): boolean {
    return (this.#agreed & FEATURE.digests) !== 0;
  }

  /**
   * Asks for them, under a seed of two `u32`; no transaction begins before all of the answer is there.
   */
  queryDigests(seedLow: number, seedHigh: number): void {
    this.#expect(TXN.DIGEST_QUERY, "query digests");
    this.#state = "asking";
    this.#frame(TXN.DIGEST_QUERY, 0, 0, this.#queries.askPages(seedLow, seedHigh));
  }

  /** Whether one more query of a disk may be sent: the peer answers it, and not too many wait. */
  get mayQueryDisk(): boolean {
    return this.#may(TXN.DISK_QUERY) && this.#queries.mayQueryDisk;
  }

  /**
   * Asks for the digests of a disk's chunks, at any time; answers come in the order of the queries.
   * @param payload A DISK_QUERY payload, see `encodeDiskQuery`.
   */
  queryDisk(payload: Uint8Array): void {
    if (!this.mayQueryDisk) throw new StateError(`query a disk while ${this.#state}`);
    this.#queries.askDisk();
    this.#frame(TXN.DISK_QUERY, 0, 0, payload);
  }

  /**
   * Takes bytes from the peer.
   * @returns One past the last byte taken; the rest must be presented again.
   * @throws {WireError} where the peer breaks the protocol, or refuses (`refused`, its reason).
   */
  receive(bytes: Uint8Array, start: number, end: number, now: number): number {
    this.#clock.heard(now);
    return this.#decoder.decode(bytes, start, end, this);
  }

  /**
   * Lets time pass: heartbeats are sent, silence is noticed. Call it often.
   *
   * @param isBacklogged What was said before is not written yet: a heartbeat behind it says nothing.
   */
  tick(now: number, isBacklogged = false): void {
    this.#clock.tick(now);
    if (this.isOver || this.#state === "leaving") return;
    if (!isBacklogged && this.#may(TXN.HEARTBEAT) && this.#clock.mustSpeak(this.#peer)) {
      this.#frame(TXN.HEARTBEAT, 0, 0);
    }
    if (this.#isLost || !this.#clock.isLost) return;
    this.#isLost = true;
    this.#events.push({ kind: "lost", silentMs: this.#clock.silentMs });
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

  /** True once the session is over by the peer's word: the ACK of a HANDOVER, LEFT, or a NACK. */
  get isOver(): boolean {
    return this.#isRefused || this.#state === "done";
  }

  check(header: FrameHeader, offset: number): void {
    checkPlace("sender", this.#state, header, this.#agreed, offset);
    switch (header.command) {
      case TXN.ACK:
        return this.#checkAck(header.transaction, offset);
      case TXN.DIGEST:
      case TXN.DISK_DIGEST:
        return this.#queries.check(header.command, offset);
    }
  }

  streamed(): void {}

  piece(): void {}

  frame(header: FrameHeader, payload: Uint8Array, offset: number): void {
    switch (header.command) {
      case TXN.HELLO:
        return this.#hello(payload, offset);
      case TXN.NACK:
        this.#isRefused = true;
        throw decodeRefusal(payload, header.transaction, offset);
      case TXN.ACK:
        return this.#acked(header.transaction);
      case TXN.LEFT:
        this.#state = "done";
        this.#events.push({ kind: "left" });
        return;
      case TXN.DIGEST: {
        const answer = this.#queries.pagesAnswered(header, payload);
        if (answer.last && this.#state === "asking") this.#state = "ready";
        this.#events.push(answer);
        return;
      }
      case TXN.DISK_DIGEST:
        this.#events.push(this.#queries.diskAnswered(header, payload));
        return;
    }
  }

  #hello(payload: Uint8Array, offset: number): void {
    const peer = decodeHello(payload, offset);
    if (peer.session.some((byte, i) => byte !== this.#options.session[i])) {
      refuse(offset + 16, "bad-value", "HELLO answers another session");
    }
    this.#peer = peer;
    this.#agreed = agreedFeatures(OFFERED_FEATURES, peer.features);
    this.#transaction = this.#acknowledged = peer.committed;
    const clock = this.#options.packingClock;
    if (clock !== undefined && (this.#agreed & FEATURE.packed) !== 0) this.#writer.mayPack(clock);
    this.#state = "ready";
    this.#events.push({ kind: "ready", hello: peer });
  }

  #checkAck(transaction: number, offset: number): void {
    const handedOver = this.#state === "handover" ? this.#transaction : undefined;
    const awaited = this.#inFlight[0]?.transaction ?? handedOver;
    if (transaction === awaited) return;
    const found = `an ACK of transaction ${transaction}`;
    refuse(offset, "bad-order", `${found}, awaited was ${awaited ?? "none"}`);
  }

  #acked(transaction: number): void {
    const oldest = this.#inFlight.shift();
    if (oldest === undefined) {
      this.#state = "done";
      this.#events.push({ kind: "handed-over" });
      return;
    }
    this.#acknowledged = transaction;
    const roundTripMs = this.#clock.now - oldest.committedAt;
    this.#events.push({ kind: "acked", transaction, roundTripMs });
  }

  #frame(command: number, flags: number, transaction: number, payload?: Uint8Array): void {
    this.#writer.frame(command, flags, transaction, payload);
    this.#clock.said();
  }

  #header(command: number, flags: number, transaction: number, lengthBytes: number): void {
    this.#writer.header(command, flags, transaction, lengthBytes);
    this.#clock.said();
  }

  #may(command: number): boolean {
    return maySend("sender", this.#state, command) && isAgreed(command, this.#agreed);
  }

  #expect(command: number, what: string): void {
    if (this.#may(command)) return;
    const why = maySend("sender", this.#state, command) ? ", which was not offered," : "";
    throw new StateError(`${what}${why} while ${this.#state}`);
  }
}
