import { randomBytes } from "node:crypto";
import { StateError } from "../../errors.ts";
import { createPageDigest } from "../../replica/pages/page_digest.ts";
import { Primary, type PrimaryEvent } from "../../replica/primary/primary.ts";
import type { PackingCounters } from "../../txn/packing.ts";
import type { SentBytes } from "../../txn/sender_config.ts";
import type { LeaveReason } from "../../txn/leave.ts";
import { AttachedQemu } from "./attached_qemu.ts";
import { digestSeed } from "./digest_seed.ts";
import { bootTimeMs } from "../system/boot_time.ts";
import { helloFields, type QemuChannel, type SenderLinkSettings } from "./sender_link_settings.ts";
import type { ImageMarks } from "../image/image_marks.ts";
import { closedBySecondary, silentSecondary } from "./lost_secondary.ts";
import type { LinkState } from "./link_state.ts";
import { SenderLinkTaps } from "./sender_link_taps.ts";
import { OwnSilence } from "./own_silence.ts";
import type { PeerConnection } from "./peer_connection.ts";
import { PeerInput } from "./peer_input.ts";
import { PeerOutput } from "./peer_output.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { SegmentPool } from "../system/segment_pool.ts";
import type { Encryption, Transport } from "../system/transport.ts";
import { tellStuck } from "./stuck_stream.ts";
import { untilLeft } from "./until_left.ts";

/** How many bytes of a full stream may wait for the peer before QEMU has to wait. */
const FULL_PENDING_BYTES = 8 * 2 ** 20;

/**
 * Runs a {@link Primary} on real descriptors, in the order that its documentation gives: QEMU's
 * stream is read into segments, and sent from there without another copy.
 *
 * ```text
 * running ──leave()──► leaving ──LEFT, or the connection's end──► left
 *    └──the secondary has the VM──► handed-over
 * any of these ──quiesce()──► quiet ──close()──► closed ◄──close()── any of these
 * ```
 *
 * One link is one session with one peer. QEMU's channel may change: a snapshot loop has another one
 * for each round. Both ends of the link run on the reactor; errors end its run().
 */
export class SenderLink {
  readonly #reactor: Reactor;
  readonly #peer: PeerConnection;
  readonly primary: Primary;
  readonly #output: PeerOutput;
  readonly #peerWatch: Watch;
  readonly #peerInput: PeerInput;
  readonly #cancelTick: () => void;
  readonly #segments = new SegmentPool();
  readonly #maxPendingBytes: number;
  readonly #taps: SenderLinkTaps | undefined;
  readonly #ownSilence: OwnSilence;
  readonly #marks: ImageMarks | undefined;
  #qemu: AttachedQemu | undefined;
  #state: LinkState = { at: "running" };
  #hasCommitted = false;

  /** Called for everything the primary reports, on the loop. */
  onEvent: (event: PrimaryEvent) => void = () => {};
  /** Called when the peer has acknowledged the first transaction. */
  onFirstCommit: () => void = () => {};

  /** @param openOutput Makes the queue for output to the peer; tests give one of their own. */
  constructor(
    reactor: Reactor,
    peer: PeerConnection,
    settings: SenderLinkSettings,
    openOutput = (to: Transport, input: PeerInput) => new PeerOutput(to, input),
  ) {
    this.#reactor = reactor;
    const { transport } = this.#peer = peer;
    this.#ownSilence = new OwnSilence(settings.bootTimeMs ?? bootTimeMs);
    const session = {
      session: randomBytes(16),
      heartbeatMs: settings.heartbeatMs,
      graceMs: settings.graceMs,
      software: settings.software,
      fields: helloFields(settings),
    };
    const stopwatch = () => performance.now();
    this.primary = new Primary(settings, session, performance.now(), stopwatch);
    this.#marks = settings.marks;
    this.#maxPendingBytes = settings.maxInFlightBytes;
    this.#taps = settings.taps &&
      new SenderLinkTaps(settings.taps, this.primary, transport.name, reactor, {
        pump: () => this.#pump(),
        isClosed: () => !this.#isOpen,
      });
    this.#peerInput = new PeerInput(transport, this.primary);
    this.#output = openOutput(transport, this.#peerInput);
    this.#peerWatch = transport.watch(reactor, {
      readable: () => this.#readPeer(),
      writable: () => this.#pump(),
    });
    this.#cancelTick = reactor.every(Math.max(1, Math.min(settings.heartbeatMs / 4, 50)), () => {
      const late = this.#ownSilence.tick(settings.graceMs, this.primary.peer?.graceMs ?? 0);
      if (late) this.#readPeer();
      this.primary.tick(performance.now(), this.pendingBytes > 0);
      this.#pump();
      tellStuck(this.primary, performance.now());
    });
    try {
      this.#pump();
    } catch (error) {
      // Nobody else can close this link.
      this.close();
      throw error;
    }
  }

  get state(): LinkState {
    return this.#state;
  }
  get #isOpen(): boolean {
    return this.#state.at !== "quiet" && this.#state.at !== "closed";
  }

  /** True once the peer has said who it is. */
  get ready(): boolean {
    return this.primary.peer !== undefined;
  }
  get peerSoftware(): string {
    return this.primary.peer?.software ?? "";
  }
  /**
   * Whether this process stood still a moment ago for so long that the secondary may have taken it
   * for dead.
   */
  get stoodStill(): boolean {
    return this.#ownSilence.isSuspicious(this.primary.peer?.graceMs ?? 0);
  }

  /** True once the secondary is the VM's host. */
  get handedOver(): boolean {
    return this.#state.at === "handed-over";
  }
  /** True while it is unknown whether the secondary has become the VM's host. */
  get handingOver(): boolean {
    return this.primary.handingOver;
  }
  /** True when QEMU's attached channel has ended and all its bytes are dealt with. */
  get qemuEnded(): boolean {
    return this.#qemu?.hasEnded === true;
  }
  /** Transactions without an ACK. */
  get inFlight(): number {
    return this.primary.inFlight.length;
  }
  /** True while a transaction is being sent. */
  get open(): boolean {
    return this.primary.open;
  }
  /** The transaction that is open, or was last. */
  get transaction(): number {
    return this.primary.transaction;
  }
  /** Bytes written to the peer, framing included. */
  get wireBytes(): number {
    return this.#output.written;
  }
  get encryption(): Encryption {
    return this.#peer.transport.encryption;
  }
  get pendingBytes(): number {
    return this.#output.pendingBytes;
  }
  /** Bytes made for the peer, by what they are for. */
  get sent(): Readonly<SentBytes> {
    return this.primary.sent;
  }
  /** What packing has done; undefined where nothing is packed. */
  get packed(): PackingCounters | undefined {
    return this.primary.packed;
  }

  /** Begins to take QEMU's stream from this channel, which stays the caller's to close. */
  attach(qemu: QemuChannel): void {
    if (this.#qemu !== undefined) throw new StateError("QEMU is attached already");
    this.#qemu = new AttachedQemu(this.#reactor, qemu, {
      readable: () => this.#readQemu(),
      writable: () => this.#pump(),
    });
    this.primary.beginChannel(performance.now());
    this.#pump();
  }

  /** QEMU has said over QMP that it is in COLO: the whole first pass is in the channel by now. */
  enteredColo(): void {
    if (this.#qemu === undefined) return;
    this.primary.firstPass.enteredColo();
    this.#pumpGuarded();
  }

  /** Detaches QEMU's channel, for the next one or for good. */
  detach(): void {
    this.#qemu?.stop();
    this.#qemu = undefined;
  }

  /**
   * Tells the secondary, if there is one, what becomes of the VM here, so that the end of this
   * connection is no reason to take over. To be followed by {@link close}, before the VM is
   * released.
   *
   * @param text Details, for people.
   * @returns Resolves when the secondary has confirmed, or has had time for it; to whether it has
   *   confirmed for sure. A secondary of an older version closes the connection instead, and the
   *   end of a command may have another reason.
   * @throws {WireError} `taken-over`; or `silence` if the secondary had given us up before.
   */
  async leave(reason: LeaveReason = "goes-on", text = ""): Promise<boolean> {
    if (!this.#isOpen || !this.primary.leave({ reason, text })) return false;
    this.detach();
    this.#state = { at: "leaving" };
    const hasHeard = () => this.#peerInput.hasEnded || this.state.at !== "leaving";
    await untilLeft(this.#reactor, () => this.#pump(), hasHeard);
    const { state } = this;
    if (state.at !== "left") return false;
    return this.primary.answersLeave ? state.by === "answer" : this.#peer.transport.isSocket;
  }

  /** Behind {@link close}, for a process that ends: waits until the images bear no mark of ours. */
  async unmark(): Promise<void> {
    await this.#marks?.remove();
  }

  /** QEMU's VM runs again. */
  vmResumed(): void {
    if (this.primary.dialogue.vmResumed()) this.#pumpGuarded();
  }

  /**
   * Does nothing any more, but keeps the connection, since its end would tell the peer something.
   */
  quiesce(): void {
    this.#taps?.set.giveUp();
    this.#stop();
  }

  #stop(): void {
    if (!this.#isOpen) return;
    this.#state = { at: "quiet" };
    this.detach();
    this.#cancelTick();
    this.#marks?.remove();
    this.#taps?.inputsGoOut();
    this.#peerWatch.stop();
  }

  /** Ends the session; what has been queued is written if that is possible at once. */
  close(): void {
    this.#stop();
    if (this.#state.at === "closed") return;
    this.#state = { at: "closed" };
    try {
      this.primary.cancel();
      this.#output.push(this.primary.takeOutput(this.#output.pendingBytes));
      this.#output.flush();
    } catch {
      // The peer is gone: it has nothing to be told.
    }
    this.#peer.transport.close();
    if (!this.ready) this.#peer.command?.kill();
  }

  #readPeer(): void {
    const waited = this.primary.awaitsDigests;
    if (this.#peerInput.take() === "ended") return this.#peerEnded();
    if (waited && this.#state.at === "running" && !this.primary.awaitsDigests) {
      this.#parse(performance.now());
    }
    this.#pump();
  }

  #peerEnded(): void {
    this.#peerWatch.want(false, this.#output.wantsRoom);
    const { at } = this.#state;
    if (at === "leaving") this.#state = { at: "left", by: "end" };
    else if (at !== "left" && at !== "handed-over") {
      throw closedBySecondary(this.#peer.transport.name);
    }
  }

  #readQemu(): void {
    const qemu = this.#qemu!;
    const segment = this.#segments.writable(this.#output.written, this.#output.pendingBytes === 0);
    const room = segment.bytes.subarray(segment.end);
    const count = qemu.read(room);
    const now = performance.now();
    if (count === undefined) {
      if (!this.primary.wantsLook(now)) return;
      this.primary.foundEmpty(segment.end - segment.start, now);
    } else if (count === 0) {
      this.primary.endOfStream(segment.end - segment.start, now);
    } else {
      segment.end += count;
      this.#parse(now);
    }
    this.#pump();
  }

  /** Lets the primary take what has been read. */
  #parse(now: number): void {
    const segment = this.#segments.current;
    segment.start = this.primary.receiveStream(segment.bytes, segment.start, segment.end, now);
  }

  async #queryDigests(): Promise<void> {
    const { seedLow, seedHigh } = digestSeed();
    const digest = await createPageDigest(seedLow, seedHigh);
    if (this.#state.at !== "running") return;
    this.primary.queryDigests(seedLow, seedHigh, digest);
    this.#pump();
  }

  /** For calls made while QMP is read: a fault of the secondary must not end the QMP line. */
  #pumpGuarded(): void {
    try {
      this.#pump();
    } catch (error) {
      this.#reactor.fail(error);
    }
  }

  /** Moves everything that the primary has made of its input, then sets what to wait for. */
  #pump(): void {
    if (!this.#isOpen) return;
    // QEMU first: the VM stands still until it has its answer, and the peer's write takes longer.
    if (this.#qemu?.hears) {
      this.#qemu.answer(this.primary.takeReplies());
      this.primary.repliesGiven();
    }
    this.#output.push(this.primary.takeOutput(this.#output.pendingBytes));
    if (this.primary.holding) this.#segments.hold();
    this.#taps?.inputsGoOut();
    // Before writing to the peer: a peer that has sent its last message may be gone by now.
    this.#heedEvents();
    if (!this.#isOpen) return;
    const written = this.#output.flush(this.primary.dialogue.readingSince);
    // The last message of a peer that has gone.
    if (this.primary.isOver) this.#heedEvents();
    if (!this.primary.holding) this.#segments.unhold(this.#output.queued);
    if (!written) this.#segments.pin(this.#output.queued);
    const { hasEnded, isOver } = this.#peerInput;
    this.#peerWatch.want(!hasEnded && !isOver, !isOver && this.#output.wantsRoom);
    const mayRead = this.#mayRead();
    this.#qemu?.watch(mayRead);
    if (mayRead && this.primary.wantsLook(performance.now())) this.#readQemu();
  }

  #heedEvents(): void {
    for (const event of this.primary.takeEvents()) this.#heed(event);
  }

  #heed(event: PrimaryEvent): void {
    switch (event.kind) {
      case "ready":
        this.#marks?.remove();
        this.#taps?.begin(event.hello.features, event.hello.committed);
        break;
      case "committed":
        if (!this.#hasCommitted) this.onFirstCommit();
        this.#hasCommitted = true;
        break;
      case "wants-digests":
        this.#queryDigests().catch((error) => this.#reactor.fail(error));
        break;
      case "disk-digests":
        this.#taps!.set.diskDigests(event.payload, event.last);
        break;
      case "left":
        this.#state = { at: "left", by: "answer" };
        break;
      case "handed-over":
        this.#state = { at: "handed-over" };
        break;
      case "lost":
        throw silentSecondary(this.#peer.transport.name, event.silentMs);
    }
    this.onEvent(event);
  }

  #mayRead(): boolean {
    if (this.#qemu === undefined || this.#qemu.hasEnded) return false;
    if (!this.ready || this.primary.awaitsDigests) return false;
    const most = this.primary.isColo ? this.#maxPendingBytes : FULL_PENDING_BYTES;
    return this.#output.pendingBytes < most;
  }
}
