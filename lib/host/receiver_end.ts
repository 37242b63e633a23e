import { getLogger } from "@logtape/logtape";
import { KemariError, TransportError } from "../errors.ts";
import { Replica } from "../replica/replica.ts";
import type { ReplicaStore } from "../replica/page_store.ts";
import type { ReplicaTaps } from "../replica/replica_taps.ts";
import type { SecondaryCounters, SecondaryEvent } from "../replica/secondary.ts";
import type { Address } from "./address.ts";
import { allocateSlab } from "./libc.ts";
import { connectPeer, type PeerConnection, socketConnection } from "./peer.ts";
import type { Reactor, Watch } from "./reactor.ts";
import { ReceiverSession, refuseSender, type SessionOptions } from "./receiver_session.ts";
import { type Listener, listenSocket } from "./socket.ts";

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
  /** Where the replica's pages live; in memory by default. */
  readonly store?: ReplicaStore;
  /**
   * Looks at what `mustHold` has held back. It is acknowledged when this resolves; when it rejects, the
   * sender is refused and {@link ReceiverEnd.receive} throws.
   */
  readonly check?: (replica: Replica) => Promise<void>;
}

const OUTRUN = "the primary's VM may have gone on since, and have said what is not in it";

/** Why the secondary activates. */
export type Verdict = "handover" | "loss" | "failover";

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
  /** Whether the last sender that was here has committed something, and went without a word. */
  #isCurrent = false;
  #detectedAt = 0;
  /** This process is about to end: of what a session ends is no news then. */
  #hasFailed = false;
  #isChecking = false;
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
   * @throws {KemariError} if there is nothing to activate.
   */
  failover(): void {
    if (this.replica.committed === 0) {
      throw new TransportError("recv", "read", "nothing to activate: no transaction is committed", {
        hint: "is the sender connected? see kemari status",
      });
    }
    if (this.#verdict !== undefined || this.#takingOver) return;
    this.replica.taps.requireWhole();
    const session = this.#session;
    const isThere = session?.secondary.peer !== undefined && !session.refused;
    if (!this.#isCurrent && isThere) {
      throw new TransportError(
        session.name,
        "read",
        `the sender is there, and what is here is of an earlier session: ${OUTRUN}`,
        { hint: "wait for its first transaction, see kemari status; or end the sender first" },
      );
    }
    if (!this.#isCurrent) {
      log.warn("transaction {transaction}: {outrun}", {
        transaction: this.replica.committed,
        outrun: OUTRUN,
      });
    }
    if (isThere && !this.#options.fenced) {
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
      return refuseSender(peer, this.#reactor, "busy");
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
      this.#options,
      {
        event: (event) => this.#event(event),
        ended: (error) => this.#lost(error),
      },
    );
  }

  #event(event: SecondaryEvent): void {
    switch (event.kind) {
      case "hello":
        this.#isCurrent = false;
        log.info("sender connected: {software}", { software: event.hello.software });
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
        this.#isCurrent = true;
        if (this.#session!.secondary.awaitsCheck) this.#check(this.#session!);
        return;
      case "handover":
        log.info("handover after transaction {transaction}", { transaction: event.transaction });
        this.#endSession();
        this.#decide("handover");
        return;
      case "left":
        return this.#left();
    }
  }

  #check(session: ReceiverSession): void {
    if (this.#isChecking) return;
    this.#isChecking = true;
    const isOurs = () => this.#session === session;
    this.#options.check!(this.replica).then(() => {
      this.#isChecking = false;
      if (isOurs()) session.confirm();
      this.#reactor.wake();
    }, (error) => {
      this.#isChecking = false;
      this.#hasFailed = true;
      if (isOurs() && error instanceof KemariError) session.fail(error);
      // The refusal gets out before the loop ends.
      this.#reactor.after(50, () => this.#reactor.fail(error));
      this.#reactor.wake();
    });
  }

  /** No loss, whatever is to be done on loss: the VM is known to go on at the primary. */
  #left(): void {
    const peer = this.#session!.name;
    this.#endSession();
    this.#isCurrent = false;
    const error = new TransportError(peer, "read", "the sender has ended the protection", {
      hint: "the VM goes on at the primary",
    });
    this.#lastLoss = error;
    const mayComeBack = this.#listener !== undefined || this.#options.controlled;
    if (this.#options.onLoss === "exit" || !mayComeBack) return this.#reactor.fail(error);
    log.warn(
      "the sender has ended the protection: the VM goes on at the primary, and is not activated " +
        "here; keeping transaction {transaction} until a sender comes back",
      { transaction: this.replica.committed },
    );
  }

  #endSession(): void {
    const session = this.#session;
    this.#session = undefined;
    session?.close();
  }

  #lost(error: KemariError): void {
    const wasSender = this.#session?.secondary.peer !== undefined;
    const peerName = this.#session?.name;
    this.#endSession();
    if (this.#hasFailed) return;
    if (this.#takingOver) {
      this.#takingOver = false;
      return this.#decide("failover");
    }
    if (!wasSender && this.#listener !== undefined) {
      // A port scanner, say: its going is no loss, and must not start a failover.
      log.warn("a connection that was no sender's: {reason}", { reason: error.message });
      return;
    }
    this.#lastLoss = error;
    const committed = this.replica.committed;
    const mayComeBack = this.#listener !== undefined || this.#options.controlled;
    const unfit = this.replica.taps.unfit?.message ?? (this.#isCurrent ? undefined : OUTRUN);
    const isGone = error instanceof TransportError && error.endpoint === peerName;
    if (this.#options.onLoss === "activate" && committed > 0 && !isGone) {
      // We refused it, or had trouble of our own: the primary lives, and its VM goes on emitting.
      this.#isCurrent = false;
      log.error(
        "the sender was refused: {reason}; its VM goes on at the primary, unprotected, and is not " +
          "activated here; keeping transaction {transaction}",
        { reason: error.message, transaction: committed },
      );
    } else if (
      this.#options.onLoss === "activate" && committed > 0 && unfit !== undefined &&
      (mayComeBack || !this.#isCurrent)
    ) {
      if (!mayComeBack) {
        log.error("not activated: {unfit}", { unfit });
        return this.#reactor.fail(error);
      }
      log.error(
        "primary lost: {reason}; not activated: {unfit}; nobody is fenced; waiting for the primary",
        { reason: error.message, unfit },
      );
    } else if (this.#options.onLoss === "activate" && committed > 0) {
      log.warn("primary lost: {reason}", { reason: error.message });
      this.#decide("loss");
    } else if (this.#options.onLoss === "exit" || !mayComeBack) this.#reactor.fail(error);
    else {
      const kept = committed > 0
        ? `keeping transaction ${committed}: a sender may come back, or run kemari failover`
        : "waiting for another sender";
      log.warn("sender lost: {reason}; {kept}", { reason: error.message, kept });
    }
  }

  get lastLoss(): string | undefined {
    return this.#lastLoss?.message;
  }
}
