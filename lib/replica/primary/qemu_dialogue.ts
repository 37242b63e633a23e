import { encodeColoMessage, encodePong, encodeShut } from "../../qemu/return_path.ts";
import type { TxnSender } from "../../txn/sender.ts";
import { LatencyWindow } from "../latency_window.ts";
import type { PrimaryConfig } from "./primary_config.ts";

/**
 * How long to wait for the end of a stream that opened a return path, with SHUT sent and
 * CHECKPOINT_READY held back. A plain migration ends at once; COLO waits for an answer, and from
 * QEMU 11 on does not show before its first CHECKPOINT_REQUEST that it is COLO.
 */
const PLAIN_END_MS = 250;

/** The progress of a full state, as far as answers to QEMU depend on it. */
type FullState =
  /** The state is being read; QEMU is owed no answer. */
  | { readonly at: "reading" }
  /** The state was read, and is on its way to the secondary as this transaction. */
  | { readonly at: "sent"; readonly transaction: number }
  /** The secondary has the state. A stream that has not ended by `readyAt` is taken for COLO. */
  | { readonly at: "undecided"; readonly readyAt: number }
  /** The secondary has the state, and QEMU waits for no message. */
  | { readonly at: "over" }
  /** CHECKPOINT_READY was sent. */
  | { readonly at: "ready" };

/** The progress of a checkpoint. */
type Checkpoint =
  /** No checkpoint is under way; as far as known, the VM runs. */
  | { readonly at: "none" }
  /** QEMU has asked for a checkpoint, and has no leave to stop the VM yet. */
  | { readonly at: "asked" }
  /** QEMU gets leave when it has taken the frames for the guest. */
  | { readonly at: "draining" }
  /** CHECKPOINT_REPLY was sent: QEMU stops the VM. */
  | { readonly at: "stopping" }
  /** VMSTATE_SEND was read, at this time. */
  | { readonly at: "reading"; readonly since: number }
  /**
   * The last byte was read. VMSTATE_LOADED may wait for this transaction's ACK; 0 if not known yet.
   */
  | { readonly at: "read"; readonly since: number; readonly transaction: number }
  /** VMSTATE_LOADED was sent: QEMU lets the VM run, and has not said so over QMP yet. */
  | { readonly at: "resuming" };

/**
 * The conversation with QEMU: the messages on its return path, and their time. QEMU's own messages
 * are in the stream, and are handed in.
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
 * SHUT is QEMU's leave to go from its first pass to COLO, which QEMU reports as its state over QMP
 * only then. Sent early, SHUT does no harm to a COLO migration: QEMU waits for CHECKPOINT_READY all
 * the same (measured, 11.1). A plain migration must not get SHUT before the secondary has the VM.
 *
 * The VM stands still from VMSTATE_SEND to VMSTATE_LOADED. For a VM that stands still for another
 * reason, QEMU gets no CHECKPOINT_REPLY, if the owner reports that: after a checkpoint QEMU would
 * let a VM run that an operator has paused, and QEMU 11.1 aborts if it has paused the VM itself
 * because a disk is full. No I/O; time is an argument, in milliseconds on the clock of {@link
 * Primary}.
 */
export class QemuDialogue {
  readonly #config: PrimaryConfig;
  readonly #txn: Pick<TxnSender, "inFlight">;
  #replies: Uint8Array[] = [];
  /** Whether VMSTATE_LOADED is in the replies that {@link takeReplies} has given or will give. */
  #saysLoaded = false;
  /** The stream's kind, as far as known. */
  #kind: "unknown" | "plain" | "colo" | "snapshots";
  #returnPath: "none" | "open" | "shut" = "none";
  #full: FullState = { at: "reading" };
  #checkpoint: Checkpoint = { at: "none" };
  #requested = false;
  /** The stream is in COLO; until the VM has run there, it stands still for the full state. */
  #vm: "unseen" | "running" | "paused" = "unseen";
  /** How many stops of the VM QEMU has leave for, whose STOP has not come yet. */
  #stopsAwaited = 0;
  #isHeld = false;
  /** From VMSTATE_SEND read to VMSTATE_LOADED sent: how long the VM stands still. */
  readonly pause = new LatencyWindow();
  /** From VMSTATE_SEND read to the checkpoint's last byte read. */
  readonly receiving = new LatencyWindow();

  /** @param txn Tells how much is in flight: QEMU's next checkpoint may have to wait for that. */
  constructor(config: PrimaryConfig, txn: Pick<TxnSender, "inFlight">) {
    this.#config = config;
    this.#txn = txn;
    this.#kind = config.stream === "auto" ? "unknown" : config.stream;
  }

  get isColo(): boolean {
    return this.#kind === "colo";
  }
  /** From CHECKPOINT_READY on, a QEMU that has not said so may be in COLO. */
  get mayBeColo(): boolean {
    return this.isColo || this.#full.at === "ready";
  }
  /** Whether QEMU, after its full state, waits for a message rather than end its stream. */
  get isAwaited(): boolean {
    return this.isColo || this.hasReturnPath;
  }
  get hasReturnPath(): boolean {
    return this.#returnPath !== "none";
  }
  /** Whether the stream is a snapshot, which does not hand the VM over. */
  get isSnapshots(): boolean {
    return this.#kind === "snapshots";
  }
  /** True once QEMU has asked for a checkpoint. */
  get requested(): boolean {
    return this.#requested;
  }

  /** A stream begins: the one before, if any, was plain after all. */
  begin(): void {
    this.#returnPath = "none";
    this.#full = { at: "reading" };
    this.#checkpoint = { at: "none" };
  }

  openReturnPath(): void {
    if (this.#returnPath === "none") this.#returnPath = "open";
  }

  /** @param data PING's data, which PONG repeats. */
  ping(data: Uint8Array): void {
    this.#replies.push(encodePong(data));
    if (this.isColo && this.#config.firstPassEnd === "told") this.#shut();
  }

  /** QEMU says that COLO follows its full state. */
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
   * QEMU has taken the frames for the guest, or the wait for that is over.
   *
   * @returns Whether there are replies to QEMU because of that.
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

  /**
   * QEMU says that the VM runs again. @returns Whether there are replies to QEMU because of that.
   */
  vmResumed(): boolean {
    this.#vm = this.#full.at === "ready" ? "running" : "unseen";
    this.#stopsAwaited = 0;
    // A RESUME that is heard late, after the next CHECKPOINT_REQUEST, belongs to the last
    // checkpoint.
    if (this.#checkpoint.at === "resuming") this.#checkpoint = { at: "none" };
    return this.#replyIfMay();
  }

  /**
   * QEMU gets no leave to stop the VM any more: the guest sleeps, or the session is about to end.
   */
  hold(): void {
    this.#isHeld = true;
  }

  /**
   * True from CHECKPOINT_REQUEST until the VM runs again: QEMU must not be asked for another
   * checkpoint meanwhile.
   */
  get inCheckpoint(): boolean {
    return this.#checkpoint.at !== "none";
  }

  /** Whether the VM of a COLO stream stands still for another reason than a checkpoint. */
  get isVmPaused(): boolean {
    return this.#vm === "paused";
  }

  /** VMSTATE_SEND: the VM stands still. */
  stopped(now: number): void {
    this.#checkpoint = { at: "reading", since: now };
  }

  /**
   * Since when a checkpoint has been coming from QEMU, during which the VM stands still; undefined
   * between checkpoints.
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

  /** The replies were written: if the VM goes on, the guest is given the held frames. */
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

  /** @returns Whether there is a reply to QEMU. */
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
