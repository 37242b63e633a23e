import { randomBytes } from "node:crypto";
import { StateError } from "../../errors.ts";
import { Primary, type PrimaryEvent } from "../../replica/primary.ts";
import type { PackingCounters } from "../../txn/packing.ts";
import { type SentBytes, TxnSender } from "../../txn/sender.ts";
import type { LeaveReason } from "../../txn/leave.ts";
import { bootTimeMs } from "../system/boot_time.ts";
import { OutputQueue, readSome } from "../system/channel.ts";
import { DigestExchange } from "./digest_exchange.ts";
import { helloFields, type QemuChannel, type SenderLinkOptions } from "./link_options.ts";
import type { ImageMarks } from "../image/image_marks.ts";
import { closedBySecondary, hasGivenUsUp, silentSecondary } from "./lost_secondary.ts";
import { LinkTaps } from "./link_taps.ts";
import { OwnSilence } from "./own_silence.ts";
import type { PeerConnection } from "./peer.ts";
import { PeerInput } from "./peer_input.ts";
import { PeerOutput } from "./peer_output.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { isTakenOver } from "../vm/release_vm.ts";
import { SegmentPool } from "../system/segment_pool.ts";
import { tellStuck } from "./stuck_stream.ts";

/** Time for a secondary to hear that it is left. */
const LEAVE_MS = 1500;
/** How many bytes of a full stream wait for the peer before QEMU has to. */
const FULL_PENDING_BYTES = 8 * 2 ** 20;

/**
 * Runs a {@link Primary} and a {@link TxnSender} on real descriptors: QEMU's stream is read into
 * segments, and what they hold goes out from there without another copy.
 *
 * One link is one session with one peer. QEMU's channel may change under it: a snapshot loop has
 * one for each round. Both ends of the link run on the reactor; errors end its run().
 */
export class SenderLink {
  readonly #reactor: Reactor;
  readonly #peer: PeerConnection;
  readonly #txn: TxnSender;
  readonly primary: Primary;
  readonly #output: PeerOutput;
  readonly #peerWatch: { input: Watch; output: Watch };
  readonly #peerInput: PeerInput;
  readonly #cancelTick: () => void;
  readonly #segments = new SegmentPool();
  readonly #maxPendingBytes: number;
  readonly #taps: LinkTaps | undefined;
  readonly #digests: DigestExchange;

  #qemu: QemuChannel | undefined;
  #qemuWatch: { input: Watch; output: Watch } | undefined;
  #replies: OutputQueue | undefined;
  #qemuEnded = false;
  #handedOver = false;
  #leaving = false;
  #peerLeft = false;
  readonly #ownSilence: OwnSilence;
  #isLeaveKnown = false;
  readonly #marks: ImageMarks | undefined;
  #closed = false;
  #disconnected = false;

  /** Called for everything the primary reports, on the loop. */
  onEvent: (event: PrimaryEvent) => void = () => {};
  /** Called when the peer has the first transaction: it takes the VM's state. */
  onFirstCommit: () => void = () => {};

  constructor(reactor: Reactor, peer: PeerConnection, options: SenderLinkOptions) {
    this.#reactor = reactor;
    this.#peer = peer;
    this.#ownSilence = new OwnSilence(options.bootTimeMs ?? bootTimeMs);
    const clock = () => performance.now();
    this.#txn = new TxnSender(
      {
        session: randomBytes(16),
        heartbeatMs: options.heartbeatMs,
        graceMs: options.graceMs,
        software: options.software,
        fields: helloFields(options),
        packingClock: options.compression?.treatments.some(({ pack }) => pack) ? clock : undefined,
      },
      clock(),
    );
    this.primary = new Primary(options, this.#txn, clock);
    this.#digests = new DigestExchange(this.primary);
    this.#marks = options.marks;
    this.#maxPendingBytes = options.maxInFlightBytes;
    this.#taps = options.taps && new LinkTaps(options.taps, this.#txn, peer.name, reactor, {
      released: (transaction) => this.primary.released(transaction),
      inputsTaken: () => void (this.primary.dialogue.inputsTaken() && this.#pump()),
      pump: () => this.#pump(),
      isClosed: () => this.#closed,
    });
    this.#peerInput = new PeerInput(peer, this.#txn);
    this.#output = new PeerOutput(peer, this.#peerInput);
    this.#peerWatch = {
      input: reactor.watch(peer.input, { readable: () => this.#readPeer() }),
      output: reactor.watch(peer.output, { writable: () => this.#pump() }),
    };
    this.#cancelTick = reactor.every(Math.max(1, Math.min(options.heartbeatMs / 4, 50)), () => {
      const late = this.#ownSilence.tick(options.graceMs, this.#txn.peer?.graceMs ?? 0);
      if (late) this.#readPeer();
      this.#txn.tick(performance.now());
      this.#pump();
      tellStuck(this.primary);
    });
    try {
      this.#pump();
    } catch (error) {
      // Nobody has this link to close it.
      this.close();
      throw error;
    }
  }

  /** True once the peer has said who it is. */
  get ready(): boolean {
    return this.#txn.peer !== undefined;
  }
  get peerSoftware(): string {
    return this.#txn.peer?.software ?? "";
  }
  /**
   * Whether we have just been silent for so long, by standing still ourselves, that the secondary may
   * have taken us for dead.
   */
  get stoodStill(): boolean {
    return this.#ownSilence.isSuspicious(this.#txn.peer?.graceMs ?? 0);
  }

  /** True once the secondary is the VM's host. */
  get handedOver(): boolean {
    return this.#handedOver;
  }
  /** True while the secondary may or may not have become it. */
  get handingOver(): boolean {
    return this.#txn.handingOver;
  }
  /** True when QEMU's channel has ended and every byte of it was dealt with. */
  get qemuEnded(): boolean {
    return this.#qemuEnded;
  }
  /** Transactions without an ACK. */
  get inFlight(): number {
    return this.#txn.inFlight.length;
  }
  /** True while a transaction is being sent. */
  get open(): boolean {
    return this.#txn.open;
  }
  /** The transaction that is open, or was last. */
  get transaction(): number {
    return this.#txn.transaction;
  }
  /** Bytes written to the peer, framing included. */
  get wireBytes(): number {
    return this.#output.written;
  }
  get pendingBytes(): number {
    return this.#output.pendingBytes;
  }
  /** Bytes made for the peer, by what they are for. */
  get sent(): Readonly<SentBytes> {
    return this.#txn.sent;
  }
  /** What packing has done; undefined where nothing is packed. */
  get packed(): PackingCounters | undefined {
    return this.#txn.packed;
  }

  /** Begins to take QEMU's stream from this channel, which stays the caller's to close. */
  attach(qemu: QemuChannel): void {
    if (this.#qemu !== undefined) throw new StateError("QEMU is attached already");
    this.#qemu = qemu;
    this.#qemuEnded = false;
    this.primary.firstPass.begin();
    if (qemu.output >= 0) this.#replies = new OutputQueue(qemu.output, qemu.name, "qemu");
    this.#qemuWatch = {
      input: this.#reactor.watch(qemu.input, { readable: () => this.#readQemu() }),
      output: this.#reactor.watch(qemu.output, { writable: () => this.#pump() }),
    };
    this.#pump();
  }

  /** QEMU has said over QMP that it is in COLO: all of its first pass is in the channel by now. */
  enteredColo(): void {
    if (this.#qemu === undefined) return;
    this.primary.firstPass.enteredColo();
    this.#pumpGuarded();
  }

  /** Lets go of QEMU's channel, for the next one or for good. */
  detach(): void {
    this.#qemuWatch?.input.stop();
    this.#qemuWatch?.output.stop();
    this.#qemu = undefined;
    this.#qemuWatch = undefined;
    this.#replies = undefined;
  }

  /**
   * Tells the secondary, if there is one, what becomes of the VM here: losing this connection is
   * then no reason to take over. To be followed by {@link close}, before the VM is set free.
   *
   * @param text What more there is to say, for people.
   * @returns When the secondary has said that it knows, or was given time for it. Whether it has for
   *   sure: one of an older version closes the connection instead, and a command's end may have had
   *   another reason.
   * @throws {WireError} `taken-over`, or `silence` where it had given us up before it heard this.
   */
  async leave(reason: LeaveReason = "goes-on", text = ""): Promise<boolean> {
    if (this.#closed || !(this.#txn.ready || this.#txn.open)) return false;
    this.detach();
    this.primary.abandon();
    this.#txn.leave({ reason, text });
    this.#leaving = true;
    let late = false;
    const cancel = this.#reactor.after(LEAVE_MS, () => late = true);
    try {
      this.#pump();
      await this.#reactor.run(
        () => late || this.#peerLeft || this.#isLeaveKnown,
        new AbortController().signal,
      );
    } catch (error) {
      if (isTakenOver(error) || hasGivenUsUp(error)) throw error;
      // The peer is gone: it has nothing to be told.
    } finally {
      cancel();
    }
    if (this.#txn.answersLeave) return this.#isLeaveKnown;
    return this.#peerLeft && this.#peer.isSocket;
  }

  /** QEMU's VM runs again. */
  vmResumed(): void {
    if (this.primary.dialogue.vmResumed()) this.#pumpGuarded();
  }

  /** Does nothing any more, but keeps the connection: its end tells the peer something. */
  quiesce(): void {
    this.#taps?.set.giveUp();
    this.#stop();
  }

  #stop(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.detach();
    this.#cancelTick();
    this.#marks?.remove();
    this.#taps?.inputsGoOut();
    this.#peerWatch.input.stop();
    this.#peerWatch.output.stop();
  }

  /** Ends the session; what has been queued is given one chance to get out. */
  close(): void {
    this.#stop();
    if (this.#disconnected) return;
    this.#disconnected = true;
    try {
      if (this.#txn.open) this.#txn.cancel();
      this.#output.push(this.#txn.takeOutput());
      this.#output.flush();
    } catch {
      // The peer is gone: it has nothing to be told.
    }
    this.#peer.close();
    if (!this.ready) this.#peer.kill?.();
  }

  #readPeer(): void {
    if (this.#peerInput.take() === "ended") {
      if (this.#handedOver) return;
      if (this.#leaving) {
        this.#peerLeft = true;
        this.#peerWatch.input.want(false, false);
        return;
      }
      throw closedBySecondary(this.#peer.name);
    }
    this.#pump();
  }

  #readQemu(): void {
    const segment = this.#segments.writable(this.#output.written, this.#output.pendingBytes === 0);
    const room = segment.bytes.subarray(segment.end);
    const count = readSome(this.#qemu!.input, room, this.#qemu!.name, "qemu");
    const { firstPass } = this.primary;
    if (count === undefined) {
      if (!firstPass.wantsLook) return;
      firstPass.foundEmpty(segment.end - segment.start);
      return this.#pump();
    }
    firstPass.heard();
    if (count === 0) {
      this.#qemuEnded = true;
      this.primary.endOfStream(segment.end - segment.start);
    } else {
      segment.end += count;
      this.#parse();
    }
    this.#pump();
  }

  /** Lets the primary take what has been read, unless it must first know the replica's pages. */
  #parse(): void {
    const segment = this.#segments.current;
    while (segment.start < segment.end && !this.#digests.pending) {
      if (this.primary.wantsDigests(segment.bytes[segment.start])) {
        this.#queryDigests();
        return;
      }
      const next = this.primary.receiveStream(segment.bytes, segment.start, segment.end);
      const progress = next - segment.start;
      segment.start = next;
      if (progress === 0) return;
    }
  }

  #queryDigests(): void {
    this.#digests.begin((seedLow, seedHigh) => {
      if (this.#closed || this.#leaving) return;
      this.#txn.queryDigests(seedLow, seedHigh);
      this.#pump();
    }).catch((error) => this.#reactor.fail(error));
  }

  /** For whoever calls while QMP is read: what is wrong with the secondary must not end that line. */
  #pumpGuarded(): void {
    try {
      this.#pump();
    } catch (error) {
      this.#reactor.fail(error);
    }
  }

  /** Moves everything that can move, then says what to wait for. */
  #pump(): void {
    if (this.#closed) return;
    this.primary.tick();
    for (const event of this.#txn.takeEvents()) {
      switch (event.kind) {
        case "ready":
          this.#marks?.remove();
          this.#taps?.begin(event.hello.features, event.hello.committed);
          break;
        case "acked":
          this.primary.acked(event.transaction, event.roundTripMs);
          if (this.primary.counters.committed === 1) this.onFirstCommit();
          break;
        case "handed-over":
          this.#handedOver = true;
          this.primary.handedOver();
          break;
        case "left":
          this.#isLeaveKnown = true;
          break;
        case "digests":
          this.#digests.receive(event.payload, event.last);
          if (event.last && !this.#leaving) this.#parse();
          break;
        case "disk-digests":
          this.#taps!.set.diskDigests(event.payload, event.last);
          break;
        case "lost":
          throw silentSecondary(this.#peer.name, event.silentMs);
      }
    }
    // QEMU first: the VM stands still until it has its answer, and the peer's write takes longer.
    let answered = true;
    if (this.#replies !== undefined) {
      this.#replies.push(this.primary.takeReplies());
      answered = this.#replies.flush();
      if (this.primary.dialogue.takeLoaded()) this.#taps?.set.giveInputs();
    }
    this.primary.settle();
    if (this.primary.holding) this.#segments.hold();
    else {
      this.primary.noteBacklog(this.#output.pendingBytes);
      this.#output.push(this.#txn.takeOutput());
    }
    this.#taps?.inputsGoOut();
    const written = this.#output.flush(this.primary.dialogue.readingSince);
    if (!this.primary.holding) this.#segments.unhold(this.#output.queued);
    if (!written) this.#segments.pin(this.#output.queued);
    this.#peerWatch.input.want(true, false);
    this.#peerWatch.output.want(false, this.#output.wantsRoom);
    this.#qemuWatch?.input.want(this.#mayRead(), false);
    this.#qemuWatch?.output.want(false, !answered);
    for (const event of this.primary.takeEvents()) this.onEvent(event);
    if (this.primary.firstPass.wantsLook && this.#mayRead()) this.#readQemu();
  }

  #mayRead(): boolean {
    if (this.#qemu === undefined || this.#qemuEnded) return false;
    if (!this.ready || this.#digests.pending) return false;
    const most = this.primary.isColo ? this.#maxPendingBytes : FULL_PENDING_BYTES;
    return this.#output.pendingBytes < most;
  }
}
