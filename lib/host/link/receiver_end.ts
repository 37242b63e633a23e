import { getLogger } from "@logtape/logtape";
import { type Behind, mayFailOver } from "../../decisions/failover.ts";
import { afterSession, type SessionEnd } from "../../decisions/secondary_end.ts";
import { type KemariError, TransportError, WireError } from "../../errors.ts";
import type { Leave } from "../../txn/leave.ts";
import { Replica } from "../../replica/replica.ts";
import type { ReplicaStore } from "../../replica/page_store.ts";
import type { ReplicaTaps } from "../../replica/replica_taps.ts";
import type { SecondaryCounters, SecondaryEvent } from "../../replica/secondary.ts";
import type { Address } from "../system/address.ts";
import { CommitChecks } from "./commit_checks.ts";
import type { CommitGate } from "./commit_gate.ts";
import { allocateSlab } from "../system/libc.ts";
import { connectPeer, type PeerConnection, socketConnection } from "./peer.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { ReplicaOwner } from "../home/replica_owner.ts";
import { ReceiverSession, type SessionOptions } from "./receiver_session.ts";
import { refuseSender } from "./refuse_sender.ts";
import { notFailedOver, OUTRUN, waitingWords, whyNot } from "./session_end_words.ts";
import { type Listener, listenSocket } from "../system/socket.ts";
import type { TakeoverCause } from "../../control/receiver_status.ts";

const log = getLogger(["kemari", "recv"]);

export interface ReceiverOptions extends SessionOptions {
  readonly listen: Address;
  readonly onLoss: "wait" | "activate" | "exit";
  /** Whether anyone can tell us to activate while no sender can come back. */
  readonly controlled: boolean;
  /** Whether a command makes sure that the primary is dead; else it is asked to stop its VM. */
  readonly fenced: boolean;
  /** What of the event-tap the replica keeps; nothing by default. */
  readonly taps?: ReplicaTaps;
  /** Whose the replica is; nobody's yet by default. */
  readonly owner?: ReplicaOwner;
  /** Where the replica's pages live; in memory by default. */
  readonly store?: ReplicaStore;
  /** What a transaction must pass before it is committed. */
  readonly gate?: CommitGate;
}

/** Why a secondary does not receive any more; it ends with nothing to do where the VM was shut down. */
export type Verdict = TakeoverCause | "vm-ended";

/** Whether a sender was turned away for who it is: what is here has not changed. */
function isStranger(error: KemariError): boolean {
  return error instanceof WireError &&
    (error.fault === "other-vm" || error.fault === "same-image");
}

/**
 * The secondary's side on real descriptors: sessions come and go, the replica stays.
 *
 * ```text
 * listening ──connection──► receiving ──HANDOVER──────────────► activating
 *     ▲                         └──loss──► wait: listening ──kemari failover──► activating
 *     └─────────────────────────────────┘    └── activate: activating; exit: the error
 * ```
 */
export class ReceiverEnd {
  readonly #reactor: Reactor;
  readonly #options: ReceiverOptions;
  readonly replica: Replica;
  readonly owner: ReplicaOwner;
  readonly counters: SecondaryCounters = {
    committed: 0,
    pages: 0,
    zeroPages: 0,
    payloadBytes: 0,
    lastPayloadBytes: 0,
  };
  #listener: Listener | undefined;
  #listenerWatch: Watch | undefined;
  #session: ReceiverSession | undefined;
  #verdict: Verdict | undefined;
  #lastLoss: KemariError | undefined;
  #takingOver = false;
  #active = false;
  #committedAt = 0;
  /** Why the replica is not the VM's last state; undefined if it is. */
  #behind: Behind | undefined = "unknown";
  /** What it was before the session, which may turn out to be another VM's. */
  #behindBefore: Behind | undefined = this.#behind;
  #detectedAt = 0;
  /** This process is about to end: of what a session ends is no news then. */
  #hasFailed = false;
  readonly #checks: CommitChecks | undefined;
  /** The last session ended for want of room here, which was said: it may be tried for long. */
  #isFull = false;
  #senders = 0;

  constructor(reactor: Reactor, options: ReceiverOptions) {
    this.#reactor = reactor;
    this.#options = options;
    this.replica = new Replica(
      options.maxTransactionBytes,
      allocateSlab,
      options.taps,
      options.store,
    );
    this.owner = options.owner ?? new ReplicaOwner();
    this.replica.admitStream = (coming, kept) =>
      this.owner.admitStream(coming, kept, this.replica.committed);
    if (options.gate === undefined) return;
    this.#checks = new CommitChecks(reactor, this.replica, options.gate, () => {
      this.#hasFailed = true;
    });
  }

  /** When the last transaction was committed, in milliseconds of performance.now(); 0 if never. */
  get committedAt(): number {
    return this.#committedAt;
  }
  get session(): ReceiverSession | undefined {
    return this.#session;
  }
  /** When the decision to activate fell, in milliseconds of performance.now(). */
  get detectedAt(): number {
    return this.#detectedAt;
  }
  /** Sessions so far. */
  get senders(): number {
    return this.#senders;
  }
  get state(): "listening" | "receiving" | "waiting" | "activating" {
    if (this.#verdict !== undefined) return "activating";
    if (this.#session !== undefined) return "receiving";
    return this.replica.committed > 0 ? "waiting" : "listening";
  }

  /** Begins to listen, or opens the one connection that `exec:` and `stdio:` stand for. */
  async open(signal: AbortSignal): Promise<void> {
    const { listen } = this.#options;
    if (listen.kind === "exec" || listen.kind === "stdio") {
      const peer = await connectPeer(listen, this.#reactor, this.#options.graceMs, signal);
      this.#begin(peer);
      return;
    }
    const listener = await listenSocket(listen, this.#reactor, signal);
    this.#listener = listener;
    this.#listenerWatch = this.#reactor.watch(listener.fd, { readable: () => this.#accept() });
    this.#listenerWatch.want(true, false);
    log.info("listening on {address}", { address: listener.text });
  }

  /**
   * Receives until the VM is to be activated here. All sessions are closed by then.
   *
   * @throws {KemariError} on loss where the options say `exit`, or where nobody can come back.
   */
  async receive(signal: AbortSignal): Promise<Verdict> {
    await this.#reactor.run(() => this.#verdict !== undefined, signal);
    return this.#verdict!;
  }

  /**
   * Activates now; a sender that is there is told first, unless it is to be fenced anyway.
   *
   * @param stale Whether the replica is wanted however old it is known to be.
   * @throws {KemariError} if there is nothing to activate, or {@link mayFailOver} says no.
   */
  failover(stale = false): void {
    if (this.#verdict !== undefined || this.#takingOver) return;
    const session = this.#session;
    const isSenderThere = session?.secondary.peer !== undefined && !session.refused;
    const { committed } = this.replica;
    const behind = this.#behind;
    const answer = mayFailOver({ committed, behind, isSenderThere, stale });
    if (answer.do === "refuse") throw notFailedOver(answer.why, session?.name ?? "recv", committed);
    this.replica.taps.requireWhole();
    if (answer.warns) {
      log.warn("transaction {transaction}: {outrun}", { transaction: committed, outrun: OUTRUN });
    }
    if (isSenderThere && !this.#options.fenced) {
      log.warn("taking over from a sender that is there: it is told to stop its VM");
      this.#takingOver = true;
      return session.takeOver();
    }
    this.#endSession();
    this.#decide("failover");
  }

  /** Goes back to waiting: an activation did not succeed, and the replica is whole. */
  resume(): void {
    this.#verdict = undefined;
  }

  /** The VM runs here: from now on senders are told so. */
  activated(): void {
    this.#active = true;
    this.owner.activated();
  }

  close(): void {
    this.#endSession();
    this.#listenerWatch?.stop();
    this.#listener?.close();
    this.#listener = undefined;
  }

  #decide(verdict: Verdict): void {
    this.#verdict = verdict;
    this.#detectedAt = performance.now();
    this.#reactor.wake();
  }

  #accept(): void {
    const fd = this.#listener!.accept();
    if (fd === undefined) return;
    const peer = socketConnection(fd, this.#listener!.text);
    this.#session?.makeWay();
    if (this.#active) {
      log.warn("a sender connected, but the VM runs here: refused");
      return refuseSender(peer, this.#reactor, "taken-over");
    }
    // An activation may still fail: until it has succeeded the primary is not told to stop.
    if (this.#session !== undefined || this.#verdict !== undefined) {
      log.warn(
        this.#verdict === undefined
          ? "another sender connected while one is served: refused"
          : "a sender connected in the middle of an activation: refused",
      );
      return refuseSender(
        peer,
        this.#reactor,
        this.#verdict === undefined ? "busy" : "activating",
      );
    }
    this.#begin(peer);
  }

  #begin(peer: PeerConnection): void {
    this.#senders++;
    this.#session = new ReceiverSession(
      this.#reactor,
      peer,
      this.replica,
      this.counters,
      {
        ...this.#options,
        admit: (hello, offset) => {
          this.#options.admit?.(hello, offset);
          this.owner.admit(hello, offset, this.replica.committed);
        },
      },
      {
        event: (event) => this.#event(event),
        ended: (error) => this.#lost(error),
      },
    );
  }

  #event(event: SecondaryEvent): void {
    switch (event.kind) {
      case "hello":
        this.#behindBefore = this.#behind;
        this.#behind = "returned";
        if (!this.#isFull) {
          log.info("sender connected: {software}", { software: event.hello.software });
        }
        return;
      case "committed":
        if (this.#committedAt === 0) {
          log.info("first transaction committed: {machine}, {pages} pages, {zero} zero", {
            machine: this.replica.machine,
            pages: event.size.pages,
            zero: event.size.zeroPages,
          });
        }
        this.#committedAt = performance.now();
        this.#behind = undefined;
        this.owner.committed();
        this.#isFull = false;
        return;
      case "held":
        return this.#checks!.check(this.#session!, event.state);
      case "handover":
        log.info("handover after transaction {transaction}", { transaction: event.transaction });
        this.#endSession();
        this.#decide("handover");
        return;
      case "left":
        return this.#left(event.leave);
    }
  }

  /** The sender has said that it leaves, and knows that we have heard it. */
  #left({ reason, text }: Leave): void {
    const session = this.#session!;
    this.#session = undefined;
    this.#checks?.leave(session);
    session.partFromSender();
    const because = text === "" ? "" : ` (${text})`;
    const error = reason === "goes-on"
      ? new TransportError(session.name, "read", `the sender has ended the protection${because}`, {
        party: "peer",
        hint: "the VM stays at the primary",
      })
      : new TransportError(session.name, "read", `the VM was shut down at the primary${because}`, {
        party: "peer",
        hint: "nothing is started here",
      });
    this.#after(reason, error);
  }

  #endSession(): void {
    const session = this.#session;
    this.#session = undefined;
    this.#checks?.leave(session);
    session?.close();
  }

  #lost(error: KemariError): void {
    const session = this.#session;
    const isAdmitted = session?.secondary.peer !== undefined;
    const isSender = isAdmitted && !isStranger(error);
    // One that its stream gave away has not been here, either.
    if (isAdmitted && !isSender) this.#behind = this.#behindBefore;
    const isStorage = session?.secondary.storageFailed === true;
    // Whoever waited in vain for us has gone on alone.
    if (isSender && session!.stoodStill) this.#behind ??= "away";
    this.#endSession();
    const yielded = this.#takingOver;
    this.#takingOver = false;
    if (this.#hasFailed) return;
    const isGone = error instanceof TransportError && error.party === "peer";
    this.#after(
      yielded
        ? "yielded"
        : !isSender
        ? "no-sender"
        : isStorage
        ? "storage"
        : isGone
        ? "lost"
        : "refused",
      error,
    );
  }

  /** Carries out what {@link afterSession} says. */
  #after(end: SessionEnd, error: KemariError): void {
    const committed = this.replica.committed;
    const unfit = this.replica.taps.unfit?.message;
    const step = afterSession({
      end,
      onLoss: this.#options.onLoss,
      committed,
      isCurrent: this.#behind === undefined,
      isWhole: unfit === undefined,
      mayComeBack: this.#listener !== undefined || this.#options.controlled,
    });
    if (end !== "no-sender" && end !== "yielded") this.#lastLoss = error;
    // Only of a sender that went without a word may the VM not have got on.
    if (end !== "lost" && end !== "no-sender" && end !== "yielded") this.#behind = end;
    const reason = error.message;
    switch (step.do) {
      case "nothing":
        if (isStranger(error)) return log.error("a sender was refused: {reason}", { reason });
        // A port scanner, say: its going is no loss, and must not start a failover.
        return log.warn("a connection that was no sender's: {reason}", { reason });
      case "activate":
        if (step.why === "lost") log.warn("primary lost: {reason}", { reason });
        return this.#decide(step.why === "lost" ? "loss" : "failover");
      case "end":
        if (step.why === "vm-ended") {
          log.info("{reason}; nothing is started here", { reason });
          return this.#decide("vm-ended");
        }
        if (step.isLoud) log.error("not activated: {why}", { why: whyNot(step.why, unfit) });
        return this.#reactor.fail(error);
      case "wait": {
        if (end === "storage" && this.#isFull) return;
        this.#isFull = end === "storage";
        const level = step.isLoud ? "error" : step.why === "vm-ended" ? "info" : "warn";
        log[level]("{words}", {
          words: waitingWords(step, reason, committed, unfit, this.#options.controlled),
        });
      }
    }
  }

  get lastLoss(): string | undefined {
    return this.#lastLoss?.message;
  }
}
