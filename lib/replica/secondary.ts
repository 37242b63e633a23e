import { KemariError, StateError, TransportError, WireError } from "../errors.ts";
import {
  type ReceiverOptions,
  type TransactionKind,
  type TransactionVisitor,
  TxnReceiver,
} from "../txn/receiver.ts";
import type { Leave } from "../txn/leave.ts";
import type { Hello, NackReason } from "../txn/wire.ts";
import { digestDisk, type DiskQuery, type Waits } from "./disk_digest.ts";
import { LatencyWindow } from "./latency.ts";
import { digestPayloads, type PageDigest } from "./page_digest.ts";
import type { Replica, TransactionSize } from "./replica.ts";
import type { DiskCopy } from "./replica_taps.ts";

/** What to do next, other than moving bytes. */
export type SecondaryEvent =
  | { readonly kind: "hello"; readonly hello: Hello }
  | { readonly kind: "committed"; readonly transaction: number; readonly size: TransactionSize }
  /** The sender dropped a transaction on purpose. */
  | { readonly kind: "cancelled"; readonly transaction: number }
  /** Answer with {@link Secondary.answerDigests}, by a digest under this seed. */
  | { readonly kind: "digest-query"; readonly seedLow: number; readonly seedHigh: number }
  /** Answer with {@link Secondary.answerDiskQuery}, in the order of the queries. */
  | { readonly kind: "disk-query"; readonly query: DiskQuery; readonly copy: DiskCopy }
  /** The VM is ours: activate once the output has been written. */
  | { readonly kind: "handover"; readonly transaction: number }
  /** The sender ended the session on purpose, and has been told that we know: ours must not run. */
  | { readonly kind: "left"; readonly leave: Leave };

/** Counters since the start, over all sessions. */
export interface SecondaryCounters {
  committed: number;
  pages: number;
  zeroPages: number;
  payloadBytes: number;
  lastPayloadBytes: number;
}

/**
 * The secondary's end of one session: frames in, a replica that changes at COMMIT, answers out.
 * No I/O, and the clock is handed in. The replica outlives the session.
 *
 * ```text
 *        BEGIN            CONTINUE          COMMIT (checksum right, state complete)
 * idle ────────► staging ─────────► staging ────────────────────► committed ─ACK─► idle
 *                   └── CANCEL, loss, any fault: abort() ──► idle, the replica as it was
 * ```
 *
 * What an ACK promises: this process has the whole transaction, and its VM can go on from there as
 * long as this process lives. Its disk writes may still be on their way to the copies; the VM is not
 * started before they are there, and a stored replica is not called whole before.
 */
export class Secondary implements TransactionVisitor {
  readonly #replica: Replica;
  readonly #clock: () => number;
  readonly #receiver: TxnReceiver;
  #events: SecondaryEvent[] = [];
  #openBytes = 0;
  #begunAt = 0;
  #refused = false;
  #storageFailed = false;
  /** Answers that wait for {@link release}, or for the disks' copies. */
  #held: (() => void)[] | undefined;
  #awaitsCheck = false;
  /** They wait until nothing is pending for the copies. */
  #awaitsDisks = false;
  readonly #mustHold: () => boolean;

  /** COMMIT read → applied. */
  readonly applying = new LatencyWindow();
  /** BEGIN read → applied. */
  readonly arriving = new LatencyWindow();

  /**
   * @param mustHold Asked after every commit; where it says so, the acknowledgement and all that
   *   follows it wait for {@link release}.
   */
  constructor(
    replica: Replica,
    readonly counters: SecondaryCounters,
    options: ReceiverOptions,
    clock: () => number,
    mustHold: () => boolean = () => false,
  ) {
    this.#mustHold = mustHold;
    this.#replica = replica;
    this.#clock = clock;
    this.#receiver = new TxnReceiver(options, this, clock());
  }

  get peer(): Hello | undefined {
    return this.#receiver.peer;
  }
  /**
   * True once what this end keeps could not be stored or read: the session ended for our reasons,
   * and says nothing about the sender.
   */
  get storageFailed(): boolean {
    return this.#storageFailed;
  }
  /** The longest time in which nothing was heard, in milliseconds. */
  get longestSilenceMs(): number {
    return this.#receiver.longestSilenceMs;
  }
  /** True while a transaction is arriving. */
  get open(): boolean {
    return this.#receiver.open;
  }

  /**
   * Takes bytes from the sender.
   *
   * @returns One past the last byte taken; the rest must be presented again.
   * @throws {KemariError} when the session is over because of what the sender sent. The refusal
   *   is in the output; write it, then close. The replica is as last committed.
   */
  receive(bytes: Uint8Array, start: number, end: number): number {
    try {
      return this.#receiver.receive(bytes, start, end, this.#clock());
    } catch (error) {
      // There is no other transport in here than to what keeps the replica.
      if (error instanceof TransportError) this.storageFault(error);
      else this.refuse(error);
      throw error;
    }
  }

  /** Refuses because what keeps the replica has failed. */
  storageFault(error: TransportError): void {
    this.#storageFailed = true;
    this.refuse(error, "storage");
  }

  /** Tells the sender why this end gives up, and drops the open transaction. */
  refuse(error: unknown, reason: NackReason = reasonOf(error)): void {
    if (this.#refused) return;
    this.#refused = true;
    const open = this.#receiver.open || this.#replica.staging;
    this.#replica.abort();
    const text = error instanceof Error ? error.message : String(error);
    this.#receiver.nack(open ? this.#receiver.transaction : 0, reason, text);
  }

  /** True while what is committed is not acknowledged yet: read nothing more until it is. */
  get isHeld(): boolean {
    return this.#held !== undefined;
  }
  /** True while {@link release} is waited for. */
  get awaitsCheck(): boolean {
    return this.#awaitsCheck;
  }

  /** What was committed has been looked at: says what was held for that. */
  release(): void {
    this.#awaitsCheck = false;
    this.#catchUp();
  }

  /** Says what was held, where nothing keeps it any more. */
  #catchUp(): void {
    if (this.#held === undefined || this.#awaitsCheck || this.#isBehind) return;
    const held = this.#held;
    this.#held = undefined;
    this.#awaitsDisks = false;
    // What the sender said meanwhile was not read.
    this.#receiver.listenFrom(this.#clock());
    for (const answer of held) answer();
  }

  /** Whether too much is pending for the disks' copies. */
  get #isBehind(): boolean {
    const { pendingBytes, mostPendingBytes } = this.#replica.taps;
    return pendingBytes > (this.#awaitsDisks ? 0 : mostPendingBytes);
  }

  /** Drops what a lost connection leaves half-way. */
  abort(): void {
    this.#replica.abort();
  }

  /** Lets time pass. @returns Milliseconds of silence beyond the grace time, or 0. */
  tick(): number {
    this.#catchUp();
    const silentMs = this.#receiver.tick(this.#clock());
    return this.isHeld ? 0 : silentMs;
  }

  /** Takes what is to be written to the sender, in order. */
  takeOutput(): Uint8Array[] {
    return this.#receiver.takeOutput();
  }

  takeEvents(): SecondaryEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }

  /**
   * Answers a digest query, a frame for each step, so that reading a large replica's RAM does not
   * keep heartbeats waiting. The sender begins no transaction before it has the last one.
   *
   * @yields After every frame; write {@link takeOutput} then.
   */
  *answerDigests(digest: PageDigest): Generator<void> {
    const image = this.#replica.image;
    if (image !== undefined) {
      for (const payload of digestPayloads(image, digest)) {
        this.#receiver.digests(payload, false);
        yield;
      }
    }
    this.#receiver.digests(new Uint8Array(0), true);
  }

  /**
   * Answers a query of a disk, a frame at a time at the most.
   *
   * @yields After a little reading; write {@link takeOutput} then. Or what is to be waited for before
   *   it goes on.
   * @throws what the disk fails with: give it to {@link storageFault}.
   */
  *answerDiskQuery(query: DiskQuery, copy: DiskCopy, digest: PageDigest): Generator<Waits | void> {
    for (const part of digestDisk(copy, query, digest)) {
      if (typeof part === "function") {
        yield part;
        continue;
      }
      if (part !== undefined) this.#receiver.diskDigests(part.payload, part.last);
      yield;
    }
  }

  // What the sender does:

  hello(hello: Hello): void {
    this.#replica.taps.sessionBegins();
    this.#events.push({ kind: "hello", hello });
  }

  begin(_transaction: number, kind: TransactionKind): void {
    this.#openBytes = 0;
    this.#begunAt = this.#clock();
    this.#replica.begin(kind);
  }

  payload(bytes: Uint8Array, at: number, end: number): void {
    this.#openBytes += end - at;
    this.#replica.receive(bytes, at, end);
  }

  event(payload: Uint8Array, offset: number): void {
    this.#openBytes += payload.length;
    this.#replica.receiveEvent(payload, offset);
  }

  released(transaction: number): void {
    this.#replica.taps.released(transaction);
  }

  input(transaction: number, payload: Uint8Array, offset: number): void {
    this.#replica.taps.input(transaction, payload, offset, this.#clock());
  }

  commit(transaction: number): void {
    const commitAt = this.#clock();
    const size = this.#replica.commit(transaction);
    this.#replica.taps.forgetInputs(transaction, commitAt);
    if (this.#held === undefined) {
      this.#awaitsCheck = this.#mustHold();
      if (this.#awaitsCheck || this.#isBehind) this.#held = [];
    }
    this.#answer(() => this.#receiver.ack(transaction));
    const now = this.#clock();
    this.applying.add(now - commitAt);
    this.arriving.add(now - this.#begunAt);
    this.counters.committed++;
    this.counters.pages += size.pages;
    this.counters.zeroPages += size.zeroPages;
    this.counters.payloadBytes += this.#openBytes;
    this.counters.lastPayloadBytes = this.#openBytes;
    this.#events.push({ kind: "committed", transaction, size });
  }

  cancel(transaction: number): void {
    this.#replica.abort();
    this.#events.push({ kind: "cancelled", transaction });
  }

  handover(transaction: number): void {
    // Refused, it stays the sender's VM.
    this.#replica.taps.requireWhole();
    // The VM is the sender's to keep until its disks are here too.
    this.#awaitsDisks = true;
    if (this.#isBehind) this.#held ??= [];
    this.#answer(() => {
      this.#receiver.ack(transaction);
      this.#events.push({ kind: "handover", transaction });
    });
  }

  leave(leave: Leave): void {
    this.#answer(() => {
      this.#receiver.left();
      this.#events.push({ kind: "left", leave });
    });
  }

  #answer(say: () => void): void {
    if (this.#held === undefined) say();
    else this.#held.push(say);
  }

  digestQuery(seedLow: number, seedHigh: number): void {
    this.#events.push({ kind: "digest-query", seedLow, seedHigh });
  }

  diskQuery(payload: Uint8Array, offset: number): void {
    this.#events.push({ kind: "disk-query", ...this.#replica.taps.diskQuery(payload, offset) });
  }
}

function reasonOf(error: unknown): NackReason {
  if (error instanceof WireError) {
    if (error.fault === "bad-checksum") return "checksum";
    if (error.protocol === "transaction") {
      if (error.fault === "bad-version" || error.fault === "unsupported") return "version";
      return error.fault === "too-large" ? "too-large" : "protocol";
    }
    return "stream";
  }
  if (error instanceof StateError || !(error instanceof KemariError)) return "internal";
  return "stopping";
}
