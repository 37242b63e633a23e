import { encodeColoMessage, encodePong, encodeShut } from "../qemu/return_path.ts";
import type { TxnSender } from "../txn/sender.ts";
import { LatencyWindow } from "./latency.ts";
import type { PrimaryOptions } from "./primary_options.ts";

/**
 * How long to wait, with SHUT sent and CHECKPOINT_READY held back, for a stream that opened a
 * return path to end. A plain migration ends at once; COLO waits for us, and from QEMU 11 on does
 * not say before its first CHECKPOINT_REQUEST that it is COLO.
 */
const PLAIN_END_MS = 250;

/**
 * The conversation with QEMU beside its stream: what it is told on its return path, and when. What
 * it says itself stands in the stream, and is handed in.
 *
 * ```text
 * QEMU                       here
 * PING                  ──►  PONG; SHUT too, where QMP is to tell that COLO begins
 * (full state)          ──►  when it is acknowledged: SHUT; CHECKPOINT_READY to COLO, at once, or
 *                            PLAIN_END_MS later to a stream that may be COLO and has not ended
 * CHECKPOINT_REQUEST    ──►  CHECKPOINT_REPLY, which may have to wait for an ACK, and for QEMU to
 *                            take what was sent to the guest
 * VMSTATE_SEND, state   ──►  VMSTATE_RECEIVED; VMSTATE_LOADED at once, or at the ACK
 * ```
 *
 * SHUT is QEMU's leave to go from its first pass to COLO, which it only then names as its state over
 * QMP. Given early it does no harm to a COLO migration: QEMU waits for CHECKPOINT_READY all the same
 * (measured, 11.1). A plain migration must not have it before the secondary has the VM.
 *
 * The VM stands still from VMSTATE_SEND to VMSTATE_LOADED. A VM that stands still for another reason
 * gets no CHECKPOINT_REPLY, if whoever owns this says so: behind a checkpoint QEMU lets a VM run that
 * an operator has paused, and QEMU 11.1 aborts where it has paused the VM itself, for a disk that is
 * full. No I/O; the clock is handed in.
 */
export class QemuDialogue {
  readonly #options: PrimaryOptions;
  readonly #txn: TxnSender;
  readonly #clock: () => number;
  #replies: Uint8Array[] = [];
  /** What is known of the stream's kind. */
  #kind: "unknown" | "plain" | "colo" | "snapshots";
  #returnPath = false;
  #shutSent = false;
  #requested = false;
  #ended = false;
  #readyAt = Infinity;
  #readySent = false;
  #requestDeferred = false;
  /** CHECKPOINT_REPLY waits for QEMU to take what was sent to the guest. */
  #awaitsInputs = false;
  #loadedSaid = false;
  /** Stops of the VM that we have given leave for, and that have not been told of yet. */
  #stopsAwaited = 0;
  /** In COLO, once the VM runs: before that it stands still for the full state. */
  #vmRan = false;
  #isVmPaused = false;
  #isHeld = false;
  #inCheckpoint = false;
  /** The full transaction whose ACK QEMU's answer waits for. */
  #fullAwaited = 0;
  /** The checkpoint's that VMSTATE_LOADED waits for. */
  #checkpointAwaited = 0;
  #stoppedAt = 0;
  #isReading = false;
  /** VMSTATE_SEND read → VMSTATE_LOADED written: the VM stands still that long. */
  readonly pause = new LatencyWindow();
  /** VMSTATE_SEND read → the checkpoint's last byte read. */
  readonly receiving = new LatencyWindow();

  /** @param txn Says how much is in flight: QEMU's next checkpoint may have to wait for it. */
  constructor(options: PrimaryOptions, txn: TxnSender, clock: () => number) {
    this.#options = options;
    this.#txn = txn;
    this.#clock = clock;
    this.#kind = options.stream === "auto" ? "unknown" : options.stream;
  }

  get isColo(): boolean {
    return this.#kind === "colo";
  }
  /** From CHECKPOINT_READY on a QEMU that was silent about it may be in COLO. */
  get mayBeColo(): boolean {
    return this.#kind === "colo" || this.#readySent;
  }
  /** Whether QEMU, behind its full state, waits for a word of ours rather than end its stream. */
  get isAwaited(): boolean {
    return this.isColo || this.#returnPath;
  }
  get hasReturnPath(): boolean {
    return this.#returnPath;
  }
  /** Whether the stream is one of many, none of which gives the VM away. */
  get isSnapshots(): boolean {
    return this.#kind === "snapshots";
  }
  /** True once QEMU has asked for a checkpoint. */
  get requested(): boolean {
    return this.#requested;
  }

  /** A stream begins: one before it was plain after all. */
  begin(): void {
    this.#isReading = false;
    this.#returnPath = false;
    this.#shutSent = false;
    this.#readyAt = Infinity;
    this.#readySent = false;
  }

  openReturnPath(): void {
    this.#returnPath = true;
  }

  /** @param data PING's, which PONG repeats. */
  ping(data: Uint8Array): void {
    this.#replies.push(encodePong(data));
    if (this.isColo && this.#options.firstPassEnd === "told") this.#shut();
  }

  /** QEMU says that what follows its full state is COLO. */
  enableColo(): void {
    this.#kind = "colo";
  }

  /** The full state was read, and is on its way as this transaction. */
  fullSent(transaction: number): void {
    this.#fullAwaited = transaction;
  }

  /** CHECKPOINT_REQUEST: QEMU has leave to stop the VM now, or as soon as there is room. */
  request(): void {
    this.#requested = true;
    this.#inCheckpoint = true;
    this.#kind = "colo";
    this.#options.taps?.checkpointRequested();
    this.#requestDeferred = true;
    this.#replyIfMay();
  }

  /**
   * QEMU has taken what was sent to the guest, or nobody waits for that any more.
   *
   * @returns Whether it is to be told something because of it.
   */
  inputsTaken(): boolean {
    if (!this.#awaitsInputs) return false;
    this.#awaitsInputs = false;
    // Somebody may have paused the VM meanwhile.
    if (this.#mayReply()) this.#reply();
    else {
      this.#requestDeferred = true;
      this.#options.taps?.giveInputs();
    }
    return true;
  }

  /** Once after each VMSTATE_LOADED: it is in what {@link takeReplies} has given. */
  takeLoaded(): boolean {
    const said = this.#loadedSaid;
    this.#loadedSaid = false;
    return said;
  }

  /** QEMU says that the VM was stopped. */
  vmStopped(): void {
    if (this.#stopsAwaited > 0) this.#stopsAwaited--;
    else this.#isVmPaused = this.#vmRan;
  }

  /** QEMU says that the VM runs again. @returns Whether it is to be told something because of it. */
  vmResumed(): boolean {
    this.#vmRan = this.#readySent;
    this.#stopsAwaited = 0;
    this.#isVmPaused = false;
    this.#inCheckpoint = this.#requestDeferred || this.#awaitsInputs;
    return this.#replyIfMay();
  }

  /** QEMU gets no leave to stop the VM any more: the guest sleeps, or the session is about to end. */
  hold(): void {
    this.#isHeld = true;
  }

  /** From CHECKPOINT_REQUEST until the VM runs again: QEMU is not to be asked for another meanwhile. */
  get inCheckpoint(): boolean {
    return this.#inCheckpoint;
  }

  /** Whether the VM of a COLO stream stands still, and not for a checkpoint. */
  get isVmPaused(): boolean {
    return this.#isVmPaused;
  }

  /** VMSTATE_SEND: the VM stands still. @returns Since when. */
  stopped(): number {
    this.#isReading = true;
    return this.#stoppedAt = this.#clock();
  }

  /**
   * Since when a checkpoint has been on its way from QEMU, on the clock handed in; undefined between
   * two. The VM stands still for that.
   */
  get readingSince(): number | undefined {
    return this.#isReading ? this.#stoppedAt : undefined;
  }

  /** The checkpoint's last byte was read. @returns When. */
  received(): number {
    const now = this.#clock();
    this.#isReading = false;
    this.receiving.add(now - this.#stoppedAt);
    this.#replies.push(encodeColoMessage("VMSTATE_RECEIVED"));
    return now;
  }

  /** VMSTATE_LOADED is to wait for this transaction's ACK. */
  loadedAtAck(transaction: number): void {
    this.#checkpointAwaited = transaction;
  }

  /** VMSTATE_LOADED: the VM goes on. */
  loaded(): void {
    this.#checkpointAwaited = 0;
    this.#loadedSaid = true;
    this.#replies.push(encodeColoMessage("VMSTATE_LOADED"));
    this.pause.add(this.#clock() - this.#stoppedAt);
  }

  /** The peer acknowledged a transaction, which is no longer in flight. */
  acked(transaction: number): void {
    if (transaction === this.#fullAwaited) this.#answerFull();
    if (transaction === this.#checkpointAwaited) this.loaded();
    this.#replyIfMay();
  }

  /** QEMU's stream ended; a snapshot's may be followed by another. */
  end(): void {
    this.#ended = !this.isSnapshots;
  }

  /** Lets time pass. */
  tick(): void {
    if (!this.#readySent && !this.#ended && this.#clock() >= this.#readyAt) this.#sendReady();
  }

  /** Milliseconds until tick() has something to do, or Infinity. */
  get nextTickMs(): number {
    return this.#readySent || this.#ended ? Infinity : this.#readyAt - this.#clock();
  }

  /** Takes what is to be written to QEMU's return path. */
  takeReplies(): Uint8Array[] {
    const replies = this.#replies;
    if (replies.length > 0) this.#replies = [];
    return replies;
  }

  /** The secondary has the full state: lets a plain migration end, or COLO begin. */
  #answerFull(): void {
    this.#fullAwaited = 0;
    if (this.#returnPath) this.#shut();
    if (this.#kind === "colo") this.#sendReady();
    else if (this.#kind === "unknown" && this.#returnPath) {
      this.#readyAt = this.#clock() + PLAIN_END_MS;
    }
  }

  #shut(): void {
    if (this.#shutSent) return;
    this.#shutSent = true;
    this.#replies.push(encodeShut(0));
  }

  #sendReady(): void {
    this.#readyAt = Infinity;
    this.#readySent = true;
    this.#replies.push(encodeColoMessage("CHECKPOINT_READY"));
  }

  /** Whether the VM may be stopped, and there is room for one more transaction in flight. */
  #mayReply(): boolean {
    if (this.#isVmPaused || this.#isHeld) return false;
    if (this.#txn.inFlight.length === 0) return true;
    let bytes = 0;
    for (const transaction of this.#txn.inFlight) bytes += transaction.bytes;
    return bytes < this.#options.maxInFlightBytes;
  }

  /** @returns Whether QEMU is to be told so. */
  #replyIfMay(): boolean {
    if (!this.#requestDeferred || !this.#mayReply()) return false;
    this.#requestDeferred = false;
    this.#awaitsInputs = this.#options.taps?.holdInputs() === false;
    if (this.#awaitsInputs) return false;
    this.#reply();
    return true;
  }

  #reply(): void {
    this.#stopsAwaited++;
    this.#options.taps?.vmStops();
    this.#replies.push(encodeColoMessage("CHECKPOINT_REPLY"));
  }
}
