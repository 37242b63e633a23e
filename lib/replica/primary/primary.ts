import type { Leave } from "../../txn/leave.ts";
import type { PackingCounters } from "../../txn/packing.ts";
import { TxnSender } from "../../txn/sender.ts";
import type { InFlight, SenderConfig, SentBytes } from "../../txn/sender_config.ts";
import type { Hello } from "../../txn/hello.ts";
import type { DeltaCache } from "./delta_cache.ts";
import type { FirstPass } from "./first_pass.ts";
import { LatencyWindow } from "../latency_window.ts";
import type { PageDigest } from "../pages/page_digest.ts";
import type { PrimaryConfig, PrimaryEvent } from "./primary_config.ts";
import { PrimaryStream } from "./primary_stream.ts";
import { QemuDialogue } from "./qemu_dialogue.ts";
import type { PrimaryCounters } from "./stream_forwarder.ts";
export type { PrimaryCounters };
export type { PrimaryConfig, PrimaryEvent, PrimaryTaps } from "./primary_config.ts";

/** How the primary presents itself to its peer, and how patient it is. */
type PrimarySession = Omit<SenderConfig, "packingClock">;

/**
 * The primary's end of one session: QEMU's stream in, frames to the secondary and answers to QEMU
 * out. No I/O and no clock.
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
 * {@link PrimaryStream} makes transactions of the stream, {@link QemuDialogue} holds the resulting
 * conversation with QEMU, and {@link TxnSender} that with the peer.
 *
 * **How to drive it.** Input is handed in as it comes:
 *
 * | call                                     | when                                                     |
 * | ---------------------------------------- | -------------------------------------------------------- |
 * | {@link beginChannel}                     | before the first byte of a channel of QEMU's             |
 * | {@link receiveStream}                    | bytes of QEMU's stream have been read                    |
 * | {@link foundEmpty}                       | {@link wantsLook}, and the channel had nothing           |
 * | {@link endOfStream}                      | the channel has ended                                    |
 * | {@link receivePeer}                      | bytes of the peer's have been read                       |
 * | {@link tick}                             | at least every 50 ms, behind what the peer has said      |
 *
 * After each of these calls, and after the others that say so, the results are taken, in this
 * order:
 *
 * 1. {@link takeReplies}, to be written to QEMU at once: its VM stands still until it has its
 *    answer. Then {@link repliesGiven}.
 * 2. {@link takeOutput}, to be written to the peer. This also does the work that was put off until
 *    QEMU has its answer: it forwards a held checkpoint.
 * 3. {@link takeEvents}. `wants-digests` is to be answered with {@link queryDigests}; until {@link
 *    awaitsDigests} is false again, QEMU's stream is left unread, and then the bytes that {@link
 *    receiveStream} has not taken are handed in again.
 *
 * Time is an argument, `now`: the moment in which the input was read, in milliseconds of a clock
 * that never goes back. Forwarded bytes share the memory given to {@link receiveStream}, see {@link
 * TxnSender}; the memory must not change before they are written, nor while {@link holding}.
 */
export class Primary {
  readonly #config: PrimaryConfig;
  readonly #txn: TxnSender;
  readonly #stream: PrimaryStream;
  /** The messages to QEMU beside its stream. */
  readonly dialogue: QemuDialogue;
  #events: PrimaryEvent[] = [];
  /** A plain stream has ended completely: only then may the VM be handed over. */
  #mayHandOver = false;
  /** From COMMIT to ACK; the time begins when the checkpoint's last byte was read. */
  readonly roundTrip = new LatencyWindow();
  /** When the last transaction was acknowledged. */
  committedAt = 0;

  /** @param stopwatch Measures how long packing and forwarding take; nothing is decided by it. */
  constructor(
    config: PrimaryConfig,
    session: PrimarySession,
    now: number,
    stopwatch: () => number,
  ) {
    this.#config = config;
    const packs = config.compression?.treatments.some(({ pack }) => pack);
    this.#txn = new TxnSender({ ...session, packingClock: packs ? stopwatch : undefined }, now);
    this.dialogue = new QemuDialogue(config, this.#txn);
    const tell = (event: PrimaryEvent) => void this.#events.push(event);
    this.#stream = new PrimaryStream(config, this.#txn, this.dialogue, tell, now, stopwatch);
  }

  /** The peer's HELLO, when it has come. */
  get peer(): Hello | undefined {
    return this.#txn.peer;
  }
  /** True while a transaction is open. */
  get open(): boolean {
    return this.#txn.open;
  }
  /** The transaction that is open, or was last. */
  get transaction(): number {
    return this.#txn.transaction;
  }
  /** Transactions without an ACK, oldest first. */
  get inFlight(): readonly InFlight[] {
    return this.#txn.inFlight;
  }
  /** True from HANDOVER to its ACK: this end does not know which host runs the VM. */
  get handingOver(): boolean {
    return this.#txn.handingOver;
  }
  /**
   * True once the session is over by the peer's word: handed over, left or refused. Nothing undoes
   * that.
   */
  get isOver(): boolean {
    return this.#txn.isOver;
  }
  /**
   * Whether the peer answers {@link leave} with a message, rather than by closing the connection.
   */
  get answersLeave(): boolean {
    return this.#txn.answersLeave;
  }
  /** Whether one more query of a disk may be sent. */
  get mayQueryDisk(): boolean {
    return this.#txn.mayQueryDisk;
  }
  /** Bytes made for the peer, by what they are for. */
  get sent(): Readonly<SentBytes> {
    return this.#txn.sent;
  }
  /** What packing has done; undefined where nothing is packed. */
  get packed(): PackingCounters | undefined {
    return this.#txn.packed;
  }

  get counters(): PrimaryCounters {
    return this.#stream.counters;
  }
  /** Bytes of QEMU's stream taken so far. */
  get streamOffset(): number {
    return this.#stream.offset;
  }
  /** The parser's place in the stream, in words. */
  get place(): string {
    return this.#stream.place;
  }
  /** Finds the end of a full state without a description. */
  get firstPass(): FirstPass {
    return this.#stream.firstPass;
  }
  /** The copy of the replica's pages, if one is kept. */
  get cache(): DeltaCache | undefined {
    return this.#stream.compression.cache;
  }
  get isColo(): boolean {
    return this.dialogue.isColo;
  }
  get mayBeColo(): boolean {
    return this.dialogue.mayBeColo;
  }
  /**
   * Whether QEMU allocates memory for every checkpoint and keeps it: a QEMU that needs a return
   * path for COLO, which is 11 or later, goes on describing what it sends (measured, 11.1: 97 KB
   * each for a default `pc`).
   */
  get hoards(): boolean {
    return this.isColo && this.#stream.isDescribed && this.dialogue.hasReturnPath;
  }
  /** How long the VM stands still for a checkpoint, see {@link QemuDialogue.pause}. */
  get pause(): LatencyWindow {
    return this.dialogue.pause;
  }
  get receiving(): LatencyWindow {
    return this.dialogue.receiving;
  }
  /** From a checkpoint read to it forwarded, if that is put off until QEMU has its answer. */
  get settling(): LatencyWindow {
    return this.#stream.settling;
  }

  // Input:

  /** QEMU's stream is read from another channel from now on. */
  beginChannel(now: number): void {
    this.firstPass.begin(now);
  }

  /**
   * Takes bytes of QEMU's stream.
   *
   * @returns One past the last byte taken; the rest must be presented again, with more bytes or
   *   when {@link awaitsDigests} is false.
   * @throws {WireError} if the stream is at fault.
   */
  receiveStream(bytes: Uint8Array, start: number, end: number, now: number): number {
    return this.#stream.receive(bytes, start, end, now);
  }

  /**
   * Whether the channel is to be read even if it is not reported as readable, see {@link
   * FirstPass}.
   */
  wantsLook(now: number): boolean {
    return this.firstPass.wantsLook(now);
  }

  /**
   * The channel was read, and nothing was there.
   *
   * @param unparsedBytes Bytes that came before, and were not taken.
   * @throws {WireError} see {@link FirstPass.foundEmpty}.
   */
  foundEmpty(unparsedBytes: number, now: number): void {
    this.#stream.foundEmpty(unparsedBytes, now);
  }

  /**
   * Says that QEMU's stream ended.
   *
   * @param unparsedBytes Bytes that came before, and were not taken.
   * @throws {WireError} `truncated` if it broke off inside a plain stream.
   * @throws {TransportError} if it was a COLO stream, or may have been one: a loss.
   */
  endOfStream(unparsedBytes: number, now: number): void {
    this.#stream.end(unparsedBytes, now);
    this.#mayHandOver = !this.dialogue.isSnapshots;
    this.#maybeHandover();
  }

  /**
   * Takes bytes from the peer.
   *
   * @returns One past the last byte taken; the rest must be presented again.
   * @throws {WireError} if the peer breaks the protocol, or refuses (`refused`, its reason).
   */
  receivePeer(bytes: Uint8Array, start: number, end: number, now: number): number {
    const next = this.#txn.receive(bytes, start, end, now);
    this.#heedPeer(now);
    return next;
  }

  /**
   * Lets time pass. The peer's silence is judged here: hand in all its bytes before.
   *
   * @param isBacklogged Whether anything waits to be written to the peer.
   */
  tick(now: number, isBacklogged = false): void {
    this.#stream.tick(now);
    this.dialogue.tick(now);
    this.#txn.tick(now, isBacklogged);
    this.#heedPeer(now);
    this.#maybeHandover();
  }

  // Results:

  /** Takes what is to be written to QEMU's return path. */
  takeReplies(): Uint8Array[] {
    return this.dialogue.takeReplies();
  }

  /** The replies were written. */
  repliesGiven(): void {
    this.dialogue.repliesGiven();
  }

  /**
   * Takes what is to be written to the peer, in order; nothing while {@link holding}.
   *
   * @param pendingBytes How much waits for the peer already, see {@link
   *   CompressionControl.noteBacklog}.
   */
  takeOutput(pendingBytes = 0): Uint8Array[] {
    this.#stream.settle();
    if (this.#stream.holding) return [];
    this.#stream.compression.noteBacklog(pendingBytes);
    return this.#txn.takeOutput();
  }

  /** True while a checkpoint is read, or has been read, and not forwarded. */
  get holding(): boolean {
    return this.#stream.holding;
  }

  /** True while QEMU's stream has to wait for the digests of the replica's pages. */
  get awaitsDigests(): boolean {
    return this.#stream.digests.isPending;
  }

  takeEvents(): PrimaryEvent[] {
    const events = this.#events;
    if (events.length > 0) this.#events = [];
    return events;
  }

  // Requests of the owner; all of them may leave results to be taken:

  /**
   * Asks for the digests of the replica's pages, as the event `wants-digests` requires.
   *
   * @param digest Computes them under this seed.
   */
  queryDigests(seedLow: number, seedHigh: number, digest: PageDigest): void {
    this.#stream.digests.ask(digest);
    this.#txn.queryDigests(seedLow, seedHigh);
  }

  /** Asks for the digests of a disk's chunks, if {@link mayQueryDisk}; see {@link TxnSender}. */
  queryDisk(payload: Uint8Array): void {
    this.#txn.queryDisk(payload);
  }

  /**
   * Copies the world's frames for the guest to the peer, see {@link TxnSender.input}.
   *
   * @param inputs INPUT payloads in pieces, which stay the caller's.
   * @returns Whether the peer takes them now; if not, nothing was done.
   */
  forwardInputs(transaction: number, inputs: readonly (readonly Uint8Array[])[]): boolean {
    if (!this.#txn.takesInputs) return false;
    for (const pieces of inputs) this.#txn.input(transaction, pieces);
    return true;
  }

  /** All output held for this transaction and those before it has left. */
  released(transaction: number): void {
    this.#txn.released(transaction);
  }

  /**
   * Ends the session on purpose; the open transaction is cancelled, and no more of the stream is
   * taken. The answer is the event `left`, see {@link answersLeave}.
   *
   * @returns Whether there was a session to end; if not, nothing was done.
   */
  leave(leave: Leave): boolean {
    if (!this.#txn.mayLeave) return false;
    this.#stream.cancel();
    this.#txn.leave(leave);
    return true;
  }

  /** Drops the open transaction, if there is one: the connection is about to be closed. */
  cancel(): void {
    this.#stream.cancel();
  }

  /** Handles the events of the sender, and passes on the rest. */
  #heedPeer(now: number): void {
    for (const event of this.#txn.takeEvents()) {
      switch (event.kind) {
        case "acked":
          this.#acked(event.transaction, event.roundTripMs, now);
          break;
        case "digests":
          this.#stream.receiveDigests(event.payload, event.last);
          break;
        case "handed-over":
          this.#events.push({ kind: "handed-over", transaction: this.#txn.transaction });
          break;
        default:
          this.#events.push(event);
      }
    }
  }

  #acked(transaction: number, roundTripMs: number, now: number): void {
    this.counters.committed++;
    this.committedAt = now;
    this.roundTrip.add(roundTripMs);
    this.#stream.compression.committed(transaction, now);
    this.#events.push({ kind: "committed", transaction });
    this.#config.taps?.release(transaction);
    this.dialogue.acked(transaction, now);
    this.#maybeHandover();
  }

  /**
   * After EOF of a plain stream: hands the VM over when everything is acknowledged and all output
   * has left.
   */
  #maybeHandover(): void {
    if (!this.#mayHandOver || this.#txn.inFlight.length > 0 || !this.#txn.ready) return;
    if (!this.#config.taps?.isReleasing) this.#txn.handover();
  }
}
