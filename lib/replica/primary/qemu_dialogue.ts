import { encodeColoMessage, encodePong, encodeShut } from "../../qemu/return_path.ts";
import type { TxnSender } from "../../txn/sender.ts";
import { LatencyWindow } from "../latency_window.ts";
import type { PrimaryConfig } from "./primary_config.ts";

/**
 * How long to wait, with SHUT sent and CHECKPOINT_READY held back, for a stream that opened a
 * return path to end. A plain migration ends at once; COLO waits for us, and from QEMU 11 on does
 * not say before its first CHECKPOINT_REQUEST that it is COLO.
 */
const PLAIN_END_MS = 250;

/** How far a full state is on its way, as far as QEMU has to be answered. */
type FullState =
  /** The state is being read; QEMU is owed no answer. */
  | { readonly at: "reading" }
  /** The state was read, and is on its way to the secondary as this transaction. */
  | { readonly at: "sent"; readonly transaction: number }
  /** The secondary has the state. A stream that has not ended by `readyAt` is taken for COLO. */
  | { readonly at: "undecided"; readonly readyAt: number }
  /** The secondary has the state, and QEMU waits for no word. */
  | { readonly at: "over" }
  /** CHECKPOINT_READY was said. */
  | { readonly at: "ready" };

/** How far a checkpoint is. */
type Checkpoint =
  /** No checkpoint is under way: the VM runs, as far as is known. */
  | { readonly at: "none" }
  /** QEMU has asked for a checkpoint, and has no leave to stop the VM yet. */
  | { readonly at: "asked" }
  /** QEMU gets leave once it has taken what was sent to the guest. */
  | { readonly at: "draining" }
  /** CHECKPOINT_REPLY was said: QEMU stops the VM. */
  | { readonly at: "stopping" }
  /** VMSTATE_SEND was read, at this time. */
  | { readonly at: "reading"; readonly since: number }
  /** The last byte was read. VMSTATE_LOADED may wait for this transaction's ACK; 0 if not known yet. */
  | { readonly at: "read"; readonly since: number; readonly transaction: number }
  /** VMSTATE_LOADED was said: QEMU lets the VM run, and has not said so over QMP yet. */
  | { readonly at: "resuming" };

/**
 * The conversation with QEMU beside its stream: what it is told on its return path, and when. What
 * it says itself stands in the stream, and is handed in.
 *
 * ```text
 * full state   reading ──fullSent()──► sent ──ACK──► over           plain, or without a return path
 *                 ▲                       ├── ACK ──► ready         COLO: CHECKPOINT_READY
 *                 │                       └── ACK ──► undecided ──PLAIN_END_MS──► ready
 *                 └── begin(), from anywhere               └── end() ──► over
 *
 * checkpoint   none ──CHECKPOINT_REQUEST──► asked ──room, and the VM runs──► stopping, CHECKPOINT_REPLY
 *                                            ▲ └──QEMU has inputs to take──► draining ──taken──► stopping
 *                                            └── taken, and the VM is paused by now ───┘
 *              stopping ──VMSTATE_SEND──► reading ──last byte──► read, VMSTATE_RECEIVED
 *              read ──at once, or ACK──► resuming, VMSTATE_LOADED ──the VM runs──► none
 *
 * the VM       unseen ──runs behind READY──► running ◄──runs, stops that nobody here gave leave for──► paused
 *
 * return path  none ──OPEN_RETURN_PATH──► open ──► shut, SHUT: at the full state's ACK; at PING, where
 *                                                  QMP is to tell that COLO begins
 * ```
 *
 * SHUT is QEMU's leave to go from its first pass to COLO, which it only then names as its state over
 * QMP. Given early it does no harm to a COLO migration: QEMU waits for CHECKPOINT_READY all the same
 * (measured, 11.1). A plain migration must not have it before the secondary has the VM.
 *
 * The VM stands still from VMSTATE_SEND to VMSTATE_LOADED. A VM that stands still for another reason
 * gets no CHECKPOINT_REPLY, if whoever owns this says so: behind a checkpoint QEMU lets a VM run that
 * an operator has paused, and QEMU 11.1 aborts where it has paused the VM itself, for a disk that is
 * full. No I/O; the time is handed in, in milliseconds on the clock of {@link Primary}.
 */
export class QemuDialogue {
  readonly #config: PrimaryConfig;
  readonly #txn: Pick<TxnSender, "inFlight">;
  #replies: Uint8Array[] = [];
  /** VMSTATE_LOADED is in what {@link takeReplies} gave, or will give. */
  #saysLoaded = false;
  /** What is known of the stream's kind. */
  #kind: "unknown" | "plain" | "colo" | "snapshots";
  #returnPath: "none" | "open" | "shut" = "none";
  #full: FullState = { at: "reading" };
  #checkpoint: Checkpoint = { at: "none" };
  #requested = false;
  /** In COLO; before the VM has run there, it stands still for the full state. */
  #vm: "unseen" | "running" | "paused" = "unseen";
  /** Stops of the VM that we have given leave for, and that have not been told of yet. */
  #stopsAwaited = 0;
  #isHeld = false;
  /** VMSTATE_SEND read → VMSTATE_LOADED said: the VM stands still that long. */
  readonly pause = new LatencyWindow();
  /** VMSTATE_SEND read → the checkpoint's last byte read. */
  readonly receiving = new LatencyWindow();

  /** @param txn Says how much is in flight: QEMU's next checkpoint may have to wait for it. */
  constructor(config: PrimaryConfig, txn: Pick<TxnSender, "inFlight">) {
    this.#config = config;
    this.#txn = txn;
    this.#kind = config.stream === "auto" ? "unknown" : config.stream;
  }

  get isColo(): boolean {
    return this.#kind === "colo";
  }
  /** From CHECKPOINT_READY on a QEMU that was silent about it may be in COLO. */
  get mayBeColo(): boolean {
    return this.isColo || this.#full.at === "ready";
  }
  /** Whether QEMU, behind its full state, waits for a word of ours rather than end its stream. */
  get isAwaited(): boolean {
    return this.isColo || this.hasReturnPath;
  }
  get hasReturnPath(): boolean {
    return this.#returnPath !== "none";
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
    this.#returnPath = "none";
    this.#full = { at: "reading" };
    this.#checkpoint = { at: "none" };
  }

  openReturnPath(): void {
    if (this.#returnPath === "none") this.#returnPath = "open";
  }

  /** @param data PING's, which PONG repeats. */
  ping(data: Uint8Array): void {
    this.#replies.push(encodePong(data));
    if (this.isColo && this.#config.firstPassEnd === "told") this.#shut();
  }

  /** QEMU says that what follows its full state is COLO. */
  enableColo(): void {
    this.#kind = "colo";
  }

  /** The full state was read, and is on its way as this transaction. */
  fullSent(transaction: number): void {
    this.#full = { at: "sent", transaction };
  }

  /** CHECKPOINT_REQUEST: QEMU has leave to stop the VM now, or as soon as there is room. */
  request(): void {
    this.#requested = true;
    this.#kind = "colo";
    this.#config.taps?.checkpointRequested();
    this.#checkpoint = { at: "asked" };
    this.#replyIfMay();
  }

  /**
   * QEMU has taken what was sent to the guest, or nobody waits for that any more.
   *
   * @returns Whether it is to be told something because of it.
   */
  inputsTaken(): boolean {
    if (this.#checkpoint.at !== "draining") return false;
    // Somebody may have paused the VM meanwhile.
    if (this.#mayReply()) this.#reply();
    else {
      this.#checkpoint = { at: "asked" };
      this.#config.taps?.giveInputs();
    }
    return true;
  }

  /** QEMU says that the VM was stopped. */
  vmStopped(): void {
    if (this.#stopsAwaited > 0) this.#stopsAwaited--;
    else if (this.#vm === "running") this.#vm = "paused";
  }

  /** QEMU says that the VM runs again. @returns Whether it is to be told something because of it. */
  vmResumed(): boolean {
    this.#vm = this.#full.at === "ready" ? "running" : "unseen";
    this.#stopsAwaited = 0;
    // A RESUME that is heard late, behind the next CHECKPOINT_REQUEST, is about the last checkpoint.
    if (this.#checkpoint.at === "resuming") this.#checkpoint = { at: "none" };
    return this.#replyIfMay();
  }

  /** QEMU gets no leave to stop the VM any more: the guest sleeps, or the session is about to end. */
  hold(): void {
    this.#isHeld = true;
  }

  /** From CHECKPOINT_REQUEST until the VM runs again: QEMU is not to be asked for another meanwhile. */
  get inCheckpoint(): boolean {
    return this.#checkpoint.at !== "none";
  }

  /** Whether the VM of a COLO stream stands still, and not for a checkpoint. */
  get isVmPaused(): boolean {
    return this.#vm === "paused";
  }

  /** VMSTATE_SEND: the VM stands still. */
  stopped(now: number): void {
    this.#checkpoint = { at: "reading", since: now };
  }

  /**
   * Since when a checkpoint has been on its way from QEMU; undefined between two. The VM stands still
   * for that.
   */
  get readingSince(): number | undefined {
    return this.#checkpoint.at === "reading" ? this.#checkpoint.since : undefined;
  }

  /** The checkpoint's last byte was read. */
  received(now: number): void {
    const since = this.#stillSince(now);
    this.receiving.add(now - since);
    this.#checkpoint = { at: "read", since, transaction: 0 };
    this.#replies.push(encodeColoMessage("VMSTATE_RECEIVED"));
  }

  /** VMSTATE_LOADED is to wait for this transaction's ACK. */
  loadedAtAck(transaction: number): void {
    if (this.#checkpoint.at === "read") this.#checkpoint = { ...this.#checkpoint, transaction };
  }

  /** VMSTATE_LOADED: the VM goes on. */
  loaded(now: number): void {
    this.pause.add(now - this.#stillSince(now));
    this.#checkpoint = { at: "resuming" };
    this.#saysLoaded = true;
    this.#replies.push(encodeColoMessage("VMSTATE_LOADED"));
  }

  /** The peer acknowledged a transaction, which is no longer in flight. */
  acked(transaction: number, now: number): void {
    const [full, checkpoint] = [this.#full, this.#checkpoint];
    if (full.at === "sent" && full.transaction === transaction) this.#answerFull(now);
    if (checkpoint.at === "read" && checkpoint.transaction === transaction) this.loaded(now);
    this.#replyIfMay();
  }

  /** QEMU's stream ended; a snapshot's may be followed by another. */
  end(): void {
    if (this.#kind === "unknown") this.#kind = "plain";
    if (this.#full.at === "undecided") this.#full = { at: "over" };
  }

  /** Lets time pass. */
  tick(now: number): void {
    if (this.#full.at === "undecided" && now >= this.#full.readyAt) this.#sendReady();
  }

  /** Takes what is to be written to QEMU's return path. */
  takeReplies(): Uint8Array[] {
    const replies = this.#replies;
    if (replies.length > 0) this.#replies = [];
    return replies;
  }

  /** What {@link takeReplies} gave was written: the guest of a VM that goes on is given what was held. */
  repliesGiven(): void {
    if (!this.#saysLoaded) return;
    this.#saysLoaded = false;
    this.#config.taps?.giveInputs();
  }

  /** The secondary has the full state: lets a plain migration end, or COLO begin. */
  #answerFull(now: number): void {
    this.#full = { at: "over" };
    if (this.#returnPath === "open") this.#shut();
    if (this.#kind === "colo") this.#sendReady();
    else if (this.#kind === "unknown" && this.hasReturnPath) {
      this.#full = { at: "undecided", readyAt: now + PLAIN_END_MS };
    }
  }

  #shut(): void {
    if (this.#returnPath === "shut") return;
    this.#returnPath = "shut";
    this.#replies.push(encodeShut(0));
  }

  #sendReady(): void {
    this.#full = { at: "ready" };
    this.#replies.push(encodeColoMessage("CHECKPOINT_READY"));
  }

  #stillSince(now: number): number {
    return "since" in this.#checkpoint ? this.#checkpoint.since : now;
  }

  /** Whether the VM may be stopped, and there is room for one more transaction in flight. */
  #mayReply(): boolean {
    if (this.isVmPaused || this.#isHeld) return false;
    if (this.#txn.inFlight.length === 0) return true;
    let bytes = 0;
    for (const transaction of this.#txn.inFlight) bytes += transaction.bytes;
    return bytes < this.#config.maxInFlightBytes;
  }

  /** @returns Whether QEMU is to be told so. */
  #replyIfMay(): boolean {
    if (this.#checkpoint.at !== "asked" || !this.#mayReply()) return false;
    if (this.#config.taps?.holdInputs() === false) {
      this.#checkpoint = { at: "draining" };
      return false;
    }
    this.#reply();
    return true;
  }

  #reply(): void {
    this.#checkpoint = { at: "stopping" };
    this.#stopsAwaited++;
    this.#config.taps?.vmStops();
    this.#replies.push(encodeColoMessage("CHECKPOINT_REPLY"));
  }
}
