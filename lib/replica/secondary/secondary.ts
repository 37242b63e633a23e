import { TransportError } from "../../errors.ts";
import { type ReceiverConfig, TxnReceiver } from "../../txn/receiver.ts";
import type { TransactionKind, TransactionVisitor } from "../../txn/transaction_visitor.ts";
import type { Leave } from "../../txn/leave.ts";
import type { Hello } from "../../txn/hello.ts";
import type { NackReason } from "../../txn/wire.ts";
import type { LoadableState } from "./compose_replica.ts";
import { digestDisk, type DiskQuery, type Waits } from "../events/disk_digest.ts";
import { HeldBack } from "./held_back.ts";
import { LatencyWindow } from "../latency_window.ts";
import { digestPayloads, type PageDigest } from "../pages/page_digest.ts";
import { reasonOf } from "./refusal_reason.ts";
import type { Replica } from "./replica.ts";
import type { SecondaryCounters, SecondaryEvent } from "./secondary_event.ts";
import type { DiskCopy } from "../events/disk_copy.ts";

export type { SecondaryCounters, SecondaryEvent } from "./secondary_event.ts";

/**
 * The secondary's end of one session: frames in, a replica that changes at COMMIT, answers out.
 * No I/O and no clock: time is an argument, `now`, as `Primary` has it. The replica outlives the
 * session.
 *
 * ```text
 *        BEGIN            CONTINUE          COMMIT (checksum right, state complete)
 * idle ────────► staging ─────────► staging ────────────────────► committed ─ACK─► idle
 *                   └── CANCEL, loss, any fault: abort() ──► idle, the replica as it was
 * ```
 *
 * An ACK promises: this process has the whole transaction, and the VM can go on from there as long
 * as this process lives. Its disk writes may still be on their way to the copies; before they are
 * made, the VM is not started, and a stored replica not called whole.
 */
export class Secondary implements TransactionVisitor {
  readonly #replica: Replica;
  readonly #stopwatch: () => number;
  /** The `now` of the last call that had it. */
  #now: number;
  readonly #receiver: TxnReceiver;
  #events: SecondaryEvent[] = [];
  #openBytes = 0;
  #begunAt = 0;
  #refused = false;
  #storageFailed = false;
  /** Answers that wait for the disks' copies. */
  #held: (() => void)[] | undefined;
  /** The transaction that is being taken in, checked, committed or handed over; 0 between two. */
  #inHand = 0;
  /** The transaction that waits for {@link release}; 0 if none does. */
  #unchecked = 0;
  /** The sender's later actions, in order. */
  readonly #later = new HeldBack();
  /** Whether the answers wait until nothing is pending for the copies. */
  #awaitsDisks = false;
  readonly #mustHold: (state: LoadableState) => boolean;

  /** From COMMIT read to applied. */
  readonly applying = new LatencyWindow();
  /** From BEGIN read to applied. */
  readonly arriving = new LatencyWindow();

  /**
   * @param stopwatch Measures how long a transaction takes; nothing is decided by it.
   * @param mustHold Called when a transaction is complete; if it returns true, the commit and all
   *   behind it wait for {@link release}, and the replica is as acknowledged last.
   */
  constructor(
    replica: Replica,
    readonly counters: SecondaryCounters,
    config: ReceiverConfig,
    now: number,
    stopwatch: () => number,
    mustHold: (state: LoadableState) => boolean = () => false,
  ) {
    this.#mustHold = mustHold;
    this.#replica = replica;
    this.#now = now;
    this.#stopwatch = stopwatch;
    this.#receiver = new TxnReceiver(config, this, now);
  }

  get peer(): Hello | undefined {
    return this.#receiver.peer;
  }
  /** True once this end could not store or read its replica: that says nothing about the sender. */
  get storageFailed(): boolean {
    return this.#storageFailed;
  }
  /** The longest silence of the sender, in milliseconds. */
  get longestSilenceMs(): number {
    return this.#receiver.longestSilenceMs;
  }
  /** True from HANDOVER to its ACK, which waits for the disks, or for a look at its transaction. */
  get handingOver(): boolean {
    return this.#receiver.handingOver;
  }
  /** True while a transaction is arriving. */
  get open(): boolean {
    return this.#receiver.open;
  }

  /**
   * Takes bytes from the sender.
   *
   * @returns One past the last byte taken; the rest must be presented again.
   * @throws {KemariError} if the sender's bytes end the session. The refusal is in the output;
   *   write it, then close. The replica is as last committed.
   */
  receive(bytes: Uint8Array, start: number, end: number, now: number): number {
    this.#now = now;
    return this.#orRefuse(() => this.#receiver.receive(bytes, start, end, now));
  }

  #orRefuse<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      // Here a TransportError can only be of the replica's storage.
      if (error instanceof TransportError) this.storageFault(error, this.#inHand);
      else this.refuse(error);
      throw error;
    }
  }

  /**
   * Refuses because the replica's storage has failed.
   *
   * @param transaction Which cannot be stored because of that; 0 if it is what was acknowledged
   *   before, or is asked for.
   */
  storageFault(error: TransportError, transaction = 0): void {
    this.#storageFailed = true;
    this.refuse(error, "storage", transaction);
  }

  /**
   * Tells the sender why this end gives up, and drops the open transaction.
   *
   * @param transaction Which is refused; 0 for the connection.
   */
  refuse(
    error: unknown,
    reason: NackReason = reasonOf(error),
    transaction = this.#inHand,
  ): void {
    if (this.#refused) return;
    this.#refused = true;
    this.abort();
    const text = error instanceof Error ? error.message : String(error);
    this.#receiver.nack(transaction, reason, text);
  }

  /** The transaction that is in hand: what fails now, fails with it. */
  get inHand(): number {
    return this.#inHand;
  }
  /** True while a transaction is complete and not committed, until {@link release}. */
  get awaitsCheck(): boolean {
    return this.#unchecked !== 0;
  }
  /**
   * Whether to read from the sender: not while a committed transaction waits for its ACK. Behind a
   * transaction that is being checked reading goes on, up to a limit, since the connection may end.
   * So it does behind a HANDOVER that waits for its ACK: only its end matters there, a loss.
   */
  get mayRead(): boolean {
    return this.#receiver.handingOver || this.#held === undefined && !this.#later.isFull;
  }

  /**
   * Commits the checked transaction, and carries out the sender's later actions; the next
   * transaction may be held in turn.
   *
   * @throws {KemariError} as {@link receive}.
   */
  release(now: number): void {
    this.#now = now;
    if (!this.mayRead) this.#receiver.listenFrom(now);
    this.#unchecked = 0;
    this.#orRefuse(() => this.#later.run(() => this.awaitsCheck));
  }

  /** Sends the held answers if the disks' copies have caught up. */
  #catchUp(): void {
    if (this.#held === undefined || this.#isBehind) return;
    const held = this.#held;
    this.#held = undefined;
    this.#awaitsDisks = false;
    // The sender's messages meanwhile were not read.
    this.#receiver.listenFrom(this.#now);
    for (const answer of held) answer();
  }

  /** Whether too much is pending for the disks' copies. */
  get #isBehind(): boolean {
    const { pendingBytes, mostPendingBytes } = this.#replica.taps;
    return pendingBytes > (this.#awaitsDisks ? 0 : mostPendingBytes);
  }

  /** Drops what a lost connection has left incomplete. */
  abort(): void {
    this.#unchecked = 0;
    this.#later.clear();
    this.#replica.abort();
  }

  /** Lets time pass. @returns Milliseconds of silence beyond the grace time, or 0. */
  tick(now: number): number {
    this.#now = now;
    this.#catchUp();
    const silentMs = this.#receiver.tick(now);
    return this.mayRead ? silentMs : 0;
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
   * keep heartbeats waiting. The sender begins no transaction before it has the whole answer.
   *
   * @yields After every frame; {@link takeOutput} is to be written then.
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
   * Answers a query of a disk, at most a frame at a time.
   *
   * @yields After a little reading; {@link takeOutput} is to be written then. Or an operation to
   *   wait for before going on.
   * @throws the disk's error, which is to be given to {@link storageFault}.
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

  // The sender's actions:

  hello(hello: Hello): void {
    this.#replica.taps.sessionBegins();
    this.#events.push({ kind: "hello", hello });
  }

  begin(transaction: number, kind: TransactionKind): void {
    const begunAt = this.#stopwatch();
    this.#inOrder(0, () => {
      this.#inHand = transaction;
      this.#openBytes = 0;
      this.#begunAt = begunAt;
      this.#replica.begin(kind);
    });
  }

  payload(bytes: Uint8Array, at: number, end: number): void {
    if (this.awaitsCheck) {
      const copy = bytes.slice(at, end);
      return this.#inOrder(copy.length, () => this.payload(copy, 0, copy.length));
    }
    this.#openBytes += end - at;
    this.#replica.receive(bytes, at, end);
  }

  event(payload: Uint8Array, offset: number): void {
    this.#inOrder(payload.length, () => {
      this.#openBytes += payload.length;
      this.#replica.receiveEvent(payload, offset);
    });
  }

  released(transaction: number): void {
    this.#replica.taps.released(transaction);
  }

  input(transaction: number, payload: Uint8Array, offset: number): void {
    this.#replica.taps.input(transaction, payload, offset, this.#now);
  }

  commit(transaction: number): void {
    const now = this.#now;
    const begunAt = this.#stopwatch();
    this.#inOrder(0, () => {
      const state = this.#replica.complete();
      if (!this.#mustHold(state)) return this.#commit(transaction, now, begunAt);
      this.#unchecked = transaction;
      this.#inOrder(0, () => this.#commit(transaction, now, begunAt));
      this.#events.push({ kind: "held", transaction, state });
    });
  }

  /**
   * @param now When COMMIT was read.
   * @param begunAt The same, on the stopwatch.
   */
  #commit(transaction: number, now: number, begunAt: number): void {
    const size = this.#replica.commit(transaction);
    this.#inHand = 0;
    this.#replica.taps.forgetInputs(transaction, now);
    if (this.#isBehind) this.#held ??= [];
    this.#answer(() => this.#receiver.ack(transaction));
    const appliedAt = this.#stopwatch();
    this.applying.add(appliedAt - begunAt);
    this.arriving.add(appliedAt - this.#begunAt);
    this.counters.committed++;
    this.counters.pages += size.pages;
    this.counters.zeroPages += size.zeroPages;
    this.counters.payloadBytes += this.#openBytes;
    this.counters.lastPayloadBytes = this.#openBytes;
    this.#events.push({ kind: "committed", transaction, size });
  }

  cancel(transaction: number): void {
    this.#inOrder(0, () => {
      this.#replica.abort();
      this.#inHand = 0;
      this.#events.push({ kind: "cancelled", transaction });
    });
  }

  handover(transaction: number): void {
    this.#inOrder(0, () => {
      // If this is refused, the VM stays the sender's.
      this.#inHand = transaction;
      this.#replica.taps.requireWhole();
      this.#inHand = 0;
      // The VM stays the sender's until its disks are here too.
      this.#awaitsDisks = true;
      if (this.#isBehind) this.#held ??= [];
      this.#answer(() => {
        this.#receiver.ack(transaction);
        this.#events.push({ kind: "handover", transaction });
      });
    });
  }

  leave(leave: Leave): void {
    // The VM goes on without this end, or is gone: nothing waits for a check or an ACK any more.
    this.#held = undefined;
    this.#receiver.left();
    this.#events.push({ kind: "left", leave });
  }

  #answer(say: () => void): void {
    if (this.#held === undefined) say();
    else this.#held.push(say);
  }

  digestQuery(seedLow: number, seedHigh: number): void {
    this.#inOrder(0, () => this.#events.push({ kind: "digest-query", seedLow, seedHigh }));
  }

  diskQuery(payload: Uint8Array, offset: number): void {
    const query = this.awaitsCheck ? payload.slice() : payload;
    this.#inOrder(query.length, () => {
      this.#events.push({ kind: "disk-query", ...this.#replica.taps.diskQuery(query, offset) });
    });
  }

  /** Carries an action out now, or after the check that is under way. */
  #inOrder(bytes: number, action: () => void): void {
    if (this.awaitsCheck) this.#later.add(bytes, action);
    else action();
  }
}
