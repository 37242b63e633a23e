import { getLogger } from "@logtape/logtape";
import { mayFailOver } from "../../decisions/failover.ts";
import { ReplicaAge } from "../../decisions/replica_age.ts";
import {
  afterSecondarySession,
  judgeSecondaryEnd,
  type SecondaryEnd,
  type SecondaryStep,
} from "../../decisions/secondary_end.ts";
import { type KemariError, TransportError } from "../../errors.ts";
import type { Leave } from "../../txn/leave.ts";
import { Replica } from "../../replica/secondary/replica.ts";
import type { ReplicaStore } from "../../replica/pages/page_store.ts";
import type { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import type { SecondaryCounters, SecondaryEvent } from "../../replica/secondary/secondary.ts";
import type { ListenAddress } from "../system/address.ts";
import { CommitChecks } from "./commit_checks.ts";
import type { CommitGate } from "./commit_gate.ts";
import { allocateSlab } from "../system/libc.ts";
import type { DoorLimits } from "../door/antechamber.ts";
import { Entrance } from "../door/entrance.ts";
import { connectPeer, socketDescriptors } from "../link/peer_connection.ts";
import { never } from "../system/never.ts";
import type { Reactor } from "../system/reactor.ts";
import { ReplicaOwner } from "../home/replica_owner.ts";
import type { ReceiverState, ReceiverVerdict } from "./receiver_state.ts";
import { ReceiverSession, type SessionSettings } from "./receiver_session.ts";
import { oneAtATime } from "./hello_gate.ts";
import {
  isStranger,
  notFailedOver,
  OUTRUN,
  senderLeft,
  waitingWords,
  whyNot,
} from "./session_end_words.ts";
import type { AdmitIp } from "../system/socket.ts";
import type { Transport } from "../system/transport.ts";
import type { LinkGuard } from "../tls/link_guard.ts";

const log = getLogger(["kemari", "recv"]);

export interface ReceiverSettings extends SessionSettings {
  readonly listen: ListenAddress;
  readonly guard: LinkGuard;
  readonly onLoss: "wait" | "activate" | "exit";
  /** Whether an operator can order a failover when no sender can come back. */
  readonly controlled: boolean;
  /** Whether a command fences the primary; otherwise it is asked to stop its VM. */
  readonly fenced: boolean;
  /** The replica's share of the event-tap; none by default. */
  readonly taps?: SecondaryTaps;
  /** Which VM the replica belongs to; none yet by default. */
  readonly owner?: ReplicaOwner;
  /** Where the replica's pages are; in memory by default. */
  readonly store?: ReplicaStore;
  /** A check that transactions must pass before they are committed. */
  readonly gate?: CommitGate;
  /** What strangers may cost; `DOOR_LIMITS` by default. */
  readonly door?: DoorLimits;
}

/** A step that keeps the replica. */
type Keeping = Extract<SecondaryStep, { readonly do: "wait" | "end" }>;

/**
 * The secondary's side on real descriptors: sessions come and go, the replica stays.
 *
 * ```text
 *          a sender comes            HANDOVER; a loss, to activate; failover()
 * free ──────────────────► serving ─────────────────────────────────────────► decided ──► active
 *  ▲ │ ▲                    │ │ │                                              ▲ ▲ │  activated()
 *  │ │ └──its end, to wait──┘ │ └──failover() without a fence──► yielding ─────┘ │ │
 *  │ │                        └──the very first check fails──► ending  its end   │ │
 *  │ └──failover()───────────────────────────────────────────────────────────────┘ │
 *  └──resume()─────────────────────────────────────────────────────────────────────┘
 * ```
 */
export class ReceiverHost {
  readonly #reactor: Reactor;
  readonly #settings: ReceiverSettings;
  readonly replica: Replica;
  readonly owner: ReplicaOwner;
  readonly counters: SecondaryCounters = {
    committed: 0,
    pages: 0,
    zeroPages: 0,
    payloadBytes: 0,
    lastPayloadBytes: 0,
  };
  #entrance: Entrance | undefined;
  #state: ReceiverState = { at: "free" };
  #lastLoss: KemariError | undefined;
  #committedAt = 0;
  /** Whether the replica is the VM's last state. */
  readonly #age = new ReplicaAge();
  readonly #checks: CommitChecks | undefined;
  /** The last session ended for lack of room, which was logged: the sender may try for long. */
  #isFull = false;
  #senders = 0;
  /** Asks which VM the disks' copies belong to; their storage may not answer. */
  readonly #look = oneAtATime(async (hello) => {
    const [admit] = await Promise.all([this.#settings.look?.(hello), this.owner.look()]);
    return (offset) => {
      admit?.(offset);
      this.owner.admit(hello, offset, this.replica.committed);
    };
  });

  constructor(reactor: Reactor, settings: ReceiverSettings) {
    this.#reactor = reactor;
    this.#settings = settings;
    this.replica = new Replica(
      settings.maxTransactionBytes,
      allocateSlab,
      settings.taps,
      settings.store,
    );
    this.owner = settings.owner ?? new ReplicaOwner();
    this.replica.admitStream = (coming, kept) => this.owner.admitStream(coming, kept);
    if (settings.gate === undefined) return;
    this.#checks = new CommitChecks(reactor, this.replica, settings.gate, () => {
      this.#state = { at: "ending", session: this.session };
    });
  }

  /** When the last transaction was committed, in milliseconds of performance.now(); 0 if never. */
  get committedAt(): number {
    return this.#committedAt;
  }
  get session(): ReceiverSession | undefined {
    return "session" in this.#state ? this.#state.session : undefined;
  }
  /** When it was decided to activate, in milliseconds of performance.now(); 0 if it was not. */
  get decidedAt(): number {
    return this.#state.at === "decided" ? this.#state.decidedAt : 0;
  }
  /** How many sessions there were so far. */
  get senders(): number {
    return this.#senders;
  }
  /** Connections so far that were no sender's. */
  get strangers(): number {
    return this.entrance?.strangers ?? 0;
  }
  /** Where senders come in; undefined for `exec:` and `stdio:`, which stand for one. */
  get entrance(): Entrance | undefined {
    return this.#entrance;
  }
  /** The state as `kemari status` calls it. */
  get state(): "listening" | "receiving" | "waiting" | "activating" | "active" {
    if (this.#state.at === "active") return "active";
    if (this.#state.at === "decided") return "activating";
    if (this.session !== undefined) return "receiving";
    return this.replica.committed > 0 ? "waiting" : "listening";
  }

  /** Begins to listen, or opens the one connection that `exec:` and `stdio:` stand for. */
  async open(signal: AbortSignal): Promise<void> {
    const { listen, guard } = this.#settings;
    if (listen.kind === "exec" || listen.kind === "stdio") {
      const peer = await connectPeer(listen, guard, this.#reactor, this.#settings.graceMs, signal);
      this.#begin(peer.transport);
      return;
    }
    const owner = {
      connectionOf: (fd: number, name: string) => guard.transport(socketDescriptors(fd, name)),
      receive: (sender: Transport, said: Uint8Array<ArrayBuffer>) => this.#receive(sender, said),
    };
    const admit: AdmitIp = (ip) => guard.admit(ip, listen.text);
    const { door } = this.#settings;
    this.#entrance = await Entrance.open(listen, admit, this.#reactor, owner, signal, door);
  }

  /**
   * Receives until the VM is to be activated here. All sessions are closed by then.
   *
   * @throws {KemariError} on loss with `--on-loss exit`, or if no sender can come back.
   */
  async receive(signal: AbortSignal): Promise<ReceiverVerdict> {
    const verdict = () => this.#state.at === "decided" ? this.#state.verdict : undefined;
    await this.#reactor.run(() => verdict() !== undefined, signal);
    return verdict()!;
  }

  /**
   * Activates now; a sender that is connected is told first, unless it is to be fenced anyway.
   *
   * @param stale Whether the replica is to be started even if it is known to be old.
   * @throws {KemariError} if there is nothing to activate, or {@link mayFailOver} says no.
   */
  failover(stale = false): void {
    const { at } = this.#state;
    if (at === "yielding" || at === "decided" || at === "active") return;
    const session = this.session;
    const isSenderThere = session?.secondary.peer !== undefined && !session.refused;
    const { committed } = this.replica;
    const { behind } = this.#age;
    const answer = mayFailOver({ committed, behind, isSenderThere, stale });
    if (answer.do === "refuse") throw notFailedOver(answer.why, session?.name ?? "recv", committed);
    this.replica.taps.requireWhole();
    if (answer.warns) {
      log.warn("transaction {transaction}: {outrun}", { transaction: committed, outrun: OUTRUN });
    }
    if (isSenderThere && !this.#settings.fenced) {
      log.warn("taking over from a sender that is connected: it is told to stop its VM");
      this.#state = { at: "yielding", session };
      return session.takeOver();
    }
    this.#endSession();
    this.#decide("failover");
  }

  /** Waits again: an activation did not succeed, and the replica is whole. */
  resume(): void {
    this.#state = { at: "free" };
  }

  /** The VM runs here: from now on senders are told so. */
  activated(): void {
    this.#state = { at: "active" };
    this.owner.activated();
  }

  /** Tells a sender that is there that this process ends, and gives it time to read that. */
  async stop(): Promise<void> {
    const session = this.session;
    if (session?.secondary.peer === undefined || session.refused) return;
    this.#state = { at: "ending", session };
    session.stop();
    await this.#reactor.run(() => this.session === undefined, never).catch(() => {});
  }

  close(): void {
    this.#endSession();
    this.#entrance?.close();
    this.#entrance = undefined;
  }

  #decide(verdict: ReceiverVerdict): void {
    this.#state = { at: "decided", verdict, decidedAt: performance.now() };
    this.#reactor.wake();
  }

  #receive(sender: Transport, said: Uint8Array<ArrayBuffer>): void {
    this.session?.makeWay();
    const { at } = this.#state;
    if (at === "free") return this.#begin(sender, said);
    // An activation may still fail: until it has succeeded, the primary is not told to stop.
    const reason = at === "active" ? "taken-over" : at === "decided" ? "activating" : "busy";
    this.#entrance!.turnAway(sender, reason);
  }

  /** @param said What it has said already. */
  #begin(sender: Transport, said = new Uint8Array(0)): void {
    this.#senders++;
    const session = new ReceiverSession(
      this.#reactor,
      sender,
      this.replica,
      this.counters,
      { ...this.#settings, look: this.#look },
      {
        event: (event) => this.#event(event),
        ended: (error) => this.#ended(error),
      },
    );
    this.#state = { at: "serving", session };
    session.begin(said);
  }

  #event(event: SecondaryEvent): void {
    switch (event.kind) {
      case "hello":
        this.#age.senderCame();
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
        this.#age.committed();
        this.owner.committed();
        this.#isFull = false;
        return;
      case "held":
        return this.#checks!.check(this.session!, event.state);
      case "handover":
        log.info("handover after transaction {transaction}", { transaction: event.transaction });
        this.#takeSession()!.partFromSender();
        this.#decide("handover");
        return;
      case "left":
        return this.#left(event.leave);
    }
  }

  /** The sender has said that it leaves, and knows that this end has heard it. */
  #left(leave: Leave): void {
    const session = this.#takeSession()!;
    session.partFromSender();
    this.#after(leave.reason, senderLeft(session.name, leave));
  }

  /** A session has ended without LEAVE. */
  #ended(error: KemariError): void {
    const { at } = this.#state;
    const session = this.#takeSession()!;
    const { secondary, stoodStill } = session;
    session.close();
    if (at === "ending") return;
    const end = judgeSecondaryEnd({
      wasTold: at === "yielding",
      wasAdmitted: secondary.peer !== undefined,
      isStranger: isStranger(error),
      hasStorageFailed: secondary.storageFailed,
      isGone: error instanceof TransportError && error.party === "peer",
    });
    this.#after(end, error, stoodStill);
  }

  #endSession(): void {
    this.#takeSession()?.close();
  }

  /** Takes the session out of the state; nobody waits for its checks any more. */
  #takeSession(): ReceiverSession | undefined {
    const session = this.session;
    if (session === undefined) return undefined;
    const isEnding = this.#state.at === "ending";
    this.#state = isEnding ? { at: "ending", session: undefined } : { at: "free" };
    this.#checks?.leave(session);
    return session;
  }

  /** Carries out what {@link afterSecondarySession} decides. */
  #after(end: SecondaryEnd, error: KemariError, stoodStill = false): void {
    this.#age.ended(end, stoodStill);
    if (end !== "no-sender" && end !== "yielded") this.#lastLoss = error;
    const step = afterSecondarySession({
      end,
      onLoss: this.#settings.onLoss,
      committed: this.replica.committed,
      isCurrent: this.#age.behind === undefined,
      isWhole: this.replica.taps.unfit === undefined,
      mayComeBack: this.#entrance !== undefined || this.#settings.controlled,
    });
    const reason = error.message;
    const isRefused = isStranger(error) || error.party === "replica";
    switch (step.do) {
      case "nothing":
        if (isRefused) return log.error("a sender was refused: {reason}", { reason });
        // For example a port scanner: its end is no loss, and must not start a failover.
        return log.warn("a connection that was not a sender's: {reason}", { reason });
      case "activate":
        if (step.why === "lost") log.warn("primary lost: {reason}", { reason });
        return this.#decide(step.why === "lost" ? "loss" : "failover");
      case "end":
        return this.#end(step, error);
      case "wait":
        return this.#wait(step, end === "storage", reason);
    }
  }

  #end({ why, isLoud }: Keeping, error: KemariError): void {
    if (why === "vm-ended") {
      log.info("{reason}; nothing is started here", { reason: error.message });
      return this.#decide("vm-ended");
    }
    const unfit = this.replica.taps.unfit?.message;
    if (isLoud) log.error("not activated: {why}", { why: whyNot(why, unfit) });
    this.#reactor.fail(error);
  }

  #wait(step: Keeping, isFull: boolean, reason: string): void {
    const wasFull = this.#isFull;
    this.#isFull = isFull;
    if (wasFull && isFull) return;
    const { committed, taps } = this.replica;
    const unfit = taps.unfit?.message;
    const level = step.isLoud ? "error" : step.why === "vm-ended" ? "info" : "warn";
    log[level]("{words}", {
      words: waitingWords(step, reason, committed, unfit, this.#settings.controlled),
    });
  }

  get lastLoss(): string | undefined {
    return this.#lastLoss?.message;
  }
}
