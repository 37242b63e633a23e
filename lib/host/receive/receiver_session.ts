/** One sender's connection to the receiver, from its HELLO to its end. */
import { getLogger } from "@logtape/logtape";
import { OwnPauses } from "../../decisions/own_pauses.ts";
import { KemariError, StateError, TransportError } from "../../errors.ts";
import { Carry } from "../../bytes/carry.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import type { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import {
  Secondary,
  type SecondaryCounters,
  type SecondaryEvent,
} from "../../replica/secondary/secondary.ts";
import {
  ANSWERS_PENDING_BYTES,
  checkUnread,
  MAX_UNREAD_BYTES,
  SessionAnswers,
} from "./session_answers.ts";
import type { CommitGate } from "./commit_gate.ts";
import { bootTimeMs } from "../system/boot_time.ts";
import { closeAfterLastWords, LINGER_MS } from "../door/close_after_last_words.ts";
import { MOST_RELEASE_MS } from "../vm/release_vm.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import type { Encryption, Transport } from "../system/transport.ts";
import { HelloGate, type LookAtSender } from "./hello_gate.ts";
import type { LinkTiming } from "../link/sender_link_settings.ts";
import type { NackReason } from "../../txn/wire.ts";

const log = getLogger(["kemari", "recv"]);

/** How a session behaves. */
export interface SessionSettings extends LinkTiming {
  readonly maxTransactionBytes: number;
  readonly software: string;
  /** Examines the sender, and may ask storage for that. */
  readonly look?: LookAtSender;
  /** Checks what is about to be committed. */
  readonly gate?: Pick<CommitGate, "mustHold">;
  /** How long a sender has to stop its VM when it was told to. */
  readonly yieldMs?: number;
  /** Bytes of answers that a sender may leave unread. */
  readonly maxUnreadBytes?: number;
}

/**
 * How long a sender has to stop its VM once it was told to: as long as it waits for QEMU, and some
 * time for the way. A sender that has stopped its VM closes the connection, so only a sender that
 * is dead or cut off takes so long.
 */
const YIELD_MS = MOST_RELEASE_MS + 2000;

/** Callbacks of a session, for its owner. */
interface SessionOwner {
  event(event: SecondaryEvent): void;
  /** The session is over for this reason; the replica is as last committed. */
  ended(error: KemariError): void;
}

/** The states of a session. */
type SessionState =
  | { readonly at: "open" }
  /** The sender is being told why it is given up. */
  | { readonly at: "refusing" }
  /** The sender has been sent the reason, and may not have read it yet. */
  | { readonly at: "lingering"; cancel(): void; finish(): void }
  | { readonly at: "closed" };

/**
 * One sender's connection, from its HELLO to its end: runs a {@link Secondary} on real descriptors.
 * The replica outlives it.
 *
 * ```text
 * open ──given up──► refusing ──it may be reading──► lingering ──it has closed, or 1 s──► ended()
 *  │                     └──nobody reads──► ended()                                        │
 *  └── close() ──► closed ◄── close(), by the owner who has been told ended() ◄────────────┘
 * ```
 */
export class ReceiverSession {
  readonly #reactor: Reactor;
  readonly #peer: Transport;
  readonly #owner: SessionOwner;
  readonly secondary: Secondary;
  readonly #taps: SecondaryTaps;
  /** The handler for what a disk's copy refuses while there is no session. */
  readonly #ownerOfRefusals: (error: Error) => void;
  readonly #watch: Watch;
  readonly #carry = new Carry();
  readonly #buffer = new Uint8Array(512 * 1024);
  readonly #cancelTick: () => void;
  #readBytes = 0;
  readonly #answers: SessionAnswers;
  #state: SessionState = { at: "open" };
  readonly #bootTimeMs: () => number;
  readonly #pauses: OwnPauses;
  readonly #hello: HelloGate;
  readonly #yieldMs: number;
  readonly #maxUnreadBytes: number;
  /**
   * The sender was told that the VM is this end's: only the end of its connection, or a time limit,
   * ends the session.
   */
  #isYielding = false;

  constructor(
    reactor: Reactor,
    peer: Transport,
    replica: Replica,
    counters: SecondaryCounters,
    settings: SessionSettings,
    owner: SessionOwner,
  ) {
    this.#reactor = reactor;
    this.#peer = peer;
    this.#owner = owner;
    this.#yieldMs = settings.yieldMs ?? YIELD_MS;
    this.#maxUnreadBytes = settings.maxUnreadBytes ?? MAX_UNREAD_BYTES;
    this.#bootTimeMs = settings.bootTimeMs ?? bootTimeMs;
    this.#pauses = new OwnPauses(this.#bootTimeMs(), settings.graceMs);
    this.#hello = new HelloGate(reactor, settings, {
      opened: () => this.#guard(() => this.#take(this.#buffer.subarray(0, 0))),
      failed: (error) => this.fail(error),
    });
    this.secondary = new Secondary(
      replica,
      counters,
      {
        heartbeatMs: settings.heartbeatMs,
        graceMs: settings.graceMs,
        maxTransactionBytes: settings.maxTransactionBytes,
        committed: replica.committed,
        software: settings.software,
        takesInputs: replica.taps.keepsInputs,
        storesPages: replica.storesPages,
        admit: (_hello, offset) => this.#hello.admit(offset),
      },
      performance.now(),
      () => performance.now(),
      (state) => settings.gate?.mustHold(state) ?? false,
    );
    this.#answers = new SessionAnswers(
      reactor,
      this.secondary,
      () => this.#guard(() => this.#pump()),
    );
    this.#taps = replica.taps;
    this.#ownerOfRefusals = this.#taps.onRefused;
    this.#taps.onRefused = (error) =>
      this.#guard(() => {
        if (error instanceof TransportError) this.secondary.storageFault(error);
        throw error;
      });
    this.#watch = peer.watch(reactor, {
      readable: () => this.#guard(() => this.#read()),
      writable: () => this.#guard(() => this.#pump()),
    });
    const period = Math.max(1, Math.min(settings.heartbeatMs / 4, 50));
    this.#cancelTick = reactor.every(period, () => this.#guard(() => this.#tick()));
    this.#pump();
  }

  /** The sender's address. */
  get name(): string {
    return this.#peer.name;
  }
  get encryption(): Encryption {
    return this.#peer.encryption;
  }
  get software(): string {
    return this.secondary.peer?.software ?? "";
  }
  /** Bytes read from the sender, framing included. */
  get wireBytes(): number {
    return this.#readBytes;
  }

  /** Whether the sender may have given this end up because this process stood still. */
  get stoodStill(): boolean {
    return this.#pauses.isRecent(this.#bootTimeMs(), this.secondary.peer?.graceMs);
  }

  /** True once the sender has been refused: only the last message is being sent. */
  get refused(): boolean {
    return this.#state.at !== "open";
  }

  /**
   * Ends a session that is over, by LEAVE or HANDOVER: the sender may still be reading the last
   * message.
   */
  partFromSender(): void {
    this.close(() => closeAfterLastWords(this.#peer, this.#reactor));
  }

  close(letGo: () => void = () => this.#peer.close()): void {
    if (this.#state.at === "closed") return;
    if (this.#state.at === "lingering") this.#state.cancel();
    this.#state = { at: "closed" };
    this.#hello.close();
    this.#taps.onRefused = this.#ownerOfRefusals;
    this.#cancelTick();
    this.#watch.stop();
    this.secondary.abort();
    try {
      this.#peer.push(this.secondary.takeOutput());
      this.#peer.flush();
    } catch {
      // The sender is gone.
    }
    letGo();
  }

  /** Another sender has come: ends this session if it is refused already. */
  makeWay(): void {
    if (!this.#isYielding && this.#state.at === "lingering") this.#state.finish();
  }

  /** Takes what the sender has said before it had a session. */
  begin(said: Uint8Array<ArrayBuffer>): void {
    this.#guard(() => {
      this.#readBytes += said.length;
      this.#take(said);
    });
  }

  /**
   * Tells the sender that the VM is this end's from here on. The session ends when the sender has
   * closed, with its VM stopped, or has had all the time that it may need; no other sender can end
   * it before.
   */
  takeOver(): void {
    this.#isYielding = true;
    this.#end(
      new TransportError(this.#peer.name, "close", "the secondary has been told to take over", {
        party: "peer",
      }),
      "taken-over",
    );
  }

  /** Tells the sender that this process ends. The session ends when the sender has closed, or in a second. */
  stop(): void {
    const what = "this kemari recv is ending";
    this.#end(new TransportError(this.#peer.name, "close", what, { party: "host" }), "stopping");
  }

  /** Commits and acknowledges the held transaction. */
  confirm(): void {
    this.#guard(() => {
      this.secondary.release(performance.now());
      this.#pump();
    });
  }

  /** Gives the sender up, and tells it why. */
  fail(error: KemariError): void {
    this.#guard(() => {
      // A failure of the replica's storage is this end's: it says nothing about the sender.
      if (error instanceof TransportError && error.party === "replica") {
        this.secondary.storageFault(error, this.secondary.inHand);
      }
      this.#end(error);
    });
  }

  /** Runs an action whose faults end the session, not the process. */
  #guard(action: () => void): void {
    if (this.#state.at === "closed") return;
    try {
      action();
    } catch (error) {
      if (!(error instanceof KemariError) || error instanceof StateError) throw error;
      this.#end(error);
    }
  }

  /**
   * Sends the refusal before the connection is closed: closed with unread bytes left, the
   * connection would lose it.
   */
  #end(error: KemariError, reason?: NackReason): void {
    if (this.#state.at !== "open") return;
    this.#state = { at: "refusing" };
    this.#hello.close();
    this.#cancelTick();
    // A sender that has ended the connection itself is told nothing.
    const isLost = reason === undefined && error instanceof TransportError &&
      error.party === "peer";
    if (!isLost) this.secondary.refuse(error, reason, reason === undefined ? undefined : 0);
    this.#peer.push(this.secondary.takeOutput());
    // Nobody waits for a silent sender to read it.
    let gone = reason === "silence" || isLost;
    try {
      this.#peer.flush();
    } catch {
      gone = true;
    }
    const { isSocket, name } = this.#peer;
    if (gone || !isSocket && !this.#isYielding) return this.#owner.ended(error);
    const finish = () => {
      cancel();
      this.#owner.ended(error);
    };
    const late = () => {
      if (this.#isYielding) log.warn("{name} has not said that its VM has stopped", { name });
      finish();
    };
    const cancel = this.#reactor.after(this.#isYielding ? this.#yieldMs : LINGER_MS, late);
    this.#state = { at: "lingering", cancel, finish };
    this.#sayLastWords();
  }

  /** Writes what is left, and then closes the output. */
  #sayLastWords(): void {
    let written = true;
    try {
      written = this.#peer.flush();
    } catch {
      // The end of the sender is noticed by reading.
    }
    this.#watch.want(true, !written);
    if (written) this.#peer.endOutput();
  }

  #read(): void {
    let count: number | undefined;
    try {
      count = this.#peer.read(this.#buffer);
    } catch (error) {
      if (this.#state.at === "lingering") return this.#state.finish();
      throw error;
    }
    if (count === undefined) return;
    if (this.#state.at === "lingering") {
      if (count === 0) this.#state.finish();
      return;
    }
    if (count === 0) {
      const { open, handingOver } = this.secondary;
      const where = open ? " inside a transaction" : handingOver ? " before its ACK" : "";
      const reason = `the sender closed the connection${where}`;
      throw new TransportError(this.#peer.name, "read", reason, { party: "peer" });
    }
    this.#readBytes += count;
    this.#take(this.#buffer.subarray(0, count));
  }

  /** Takes what has been read, if its sender is let in. */
  #take(bytes: Uint8Array<ArrayBuffer>): void {
    const read = this.#hello.take(bytes);
    this.#carry.feed(read, 0, read.length, (bytes, start, end) => {
      return this.secondary.receive(bytes, start, end, performance.now());
    });
    this.#pump();
  }

  #tick(): void {
    this.#pauses.tick(this.#bootTimeMs(), this.secondary.peer?.graceMs);
    let silentMs = this.secondary.tick(performance.now());
    if (silentMs > 0) {
      // This process may have been stopped: what the sender sent meanwhile is in the socket.
      this.#read();
      if (this.#state.at === "closed") return;
      silentMs = this.secondary.tick(performance.now());
    }
    if (silentMs > 0) {
      const reason = `nothing was heard from the sender for ${Math.round(silentMs)} ms`;
      return this.#end(
        new TransportError(this.#peer.name, "heartbeat", reason, { party: "peer" }),
        "silence",
      );
    }
    this.#pump();
  }

  #pump(): void {
    if (this.#state.at === "lingering") return this.#sayLastWords();
    for (const event of this.secondary.takeEvents()) {
      if (event.kind === "digest-query" || event.kind === "disk-query") this.#answers.ask(event);
      this.#owner.event(event);
      if (this.#state.at === "closed") return;
    }
    if (this.#peer.pendingBytes < ANSWERS_PENDING_BYTES) this.#answer();
    this.#peer.push(this.secondary.takeOutput());
    const written = this.#peer.flush();
    checkUnread(this.#peer.pendingBytes, this.#maxUnreadBytes, this.#readBytes);
    this.#watch.want(this.secondary.mayRead && !this.#hello.isLooking, !written);
    if (written) this.#answers.goOnSoon();
  }

  #answer(): void {
    try {
      this.#answers.sayMore();
    } catch (error) {
      if (error instanceof TransportError) this.secondary.storageFault(error);
      throw error;
    }
  }
}
