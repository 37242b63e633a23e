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
import { SessionAnswers } from "./session_answers.ts";
import type { CommitGate } from "./commit_gate.ts";
import { bootTimeMs } from "../system/boot_time.ts";
import { closeAfterLastWords, LINGER_MS, YIELD_MS } from "./close_after_last_words.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import type { Encryption, Transport } from "../system/transport.ts";
import { HelloGate, type LookAtSender } from "./hello_gate.ts";
import type { LinkTiming } from "./sender_link_settings.ts";
import type { NackReason } from "../../txn/wire.ts";

const log = getLogger(["kemari", "recv"]);

/** How a session behaves. */
export interface SessionSettings extends LinkTiming {
  readonly maxTransactionBytes: number;
  readonly software: string;
  /** Looks at who comes, and may ask storage for that. */
  readonly look?: LookAtSender;
  /** Looks at what is about to be committed. */
  readonly gate?: Pick<CommitGate, "mustHold">;
  /** How long a sender has that is told to stop its VM. */
  readonly yieldMs?: number;
}

/** Time for a sender to say HELLO, before another connection takes its place. */
const HELLO_MS = 500;
/** What waits to be written before more answers are computed. */
const ANSWERS_PENDING_BYTES = 1 << 20;

/** What a session tells its owner. */
interface SessionOwner {
  event(event: SecondaryEvent): void;
  /** The session is over for this reason; the replica is as last committed. */
  ended(error: KemariError): void;
}

/** Where a session is. */
type SessionState =
  | { readonly at: "open" }
  /** The sender is being told why it is given up. */
  | { readonly at: "refusing" }
  /** The sender has been told, and may not have read that yet. */
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
  /** Who is told of what a disk's copy refuses while there is no session. */
  readonly #ownerOfRefusals: (error: Error) => void;
  readonly #watch: Watch;
  readonly #carry = new Carry();
  readonly #buffer = new Uint8Array(512 * 1024);
  readonly #cancelTick: () => void;
  readonly #begunAt = performance.now();
  #readBytes = 0;
  readonly #answers: SessionAnswers;
  #state: SessionState = { at: "open" };
  readonly #bootTimeMs: () => number;
  readonly #pauses: OwnPauses;
  readonly #hello: HelloGate;
  readonly #yieldMs: number;
  /** The sender was told that the VM is ours: nothing but its own end, or time, is its stop. */
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
    this.#bootTimeMs = settings.bootTimeMs ?? bootTimeMs;
    this.#pauses = new OwnPauses(this.#bootTimeMs(), settings.graceMs);
    this.#hello = new HelloGate(reactor, settings, {
      opened: () => this.#guard(() => this.#take(0)),
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

  /** Whether the sender may have given us up because this process stood still. */
  get stoodStill(): boolean {
    return this.#pauses.isRecent(this.#bootTimeMs(), this.secondary.peer?.graceMs);
  }

  /** True once the sender has been refused: only the last words are being got out. */
  get refused(): boolean {
    return this.#state.at !== "open";
  }

  /** Ends a session that is over, by LEAVE or HANDOVER: the sender may still be reading our last words. */
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

  /** Someone else has connected: ends a session that is refused already, or was never begun. */
  makeWay(): void {
    if (this.#isYielding) return;
    if (this.#state.at === "lingering") return this.#state.finish();
    const mute = this.secondary.peer === undefined && !this.#hello.isLooking &&
      performance.now() - this.#begunAt > HELLO_MS;
    if (mute) {
      const seconds = HELLO_MS / 1000;
      this.#owner.ended(
        new TransportError(this.#peer.name, "read", `no HELLO in ${seconds} s, and another comes`, {
          party: "peer",
        }),
      );
    }
  }

  /**
   * Tells the sender that its VM is ours from here on. The session ends when the sender has closed,
   * with its VM stopped, whoever else comes meanwhile; or when it has had all the time that it may need.
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

  /** What was held is committed and acknowledged. */
  confirm(): void {
    this.#guard(() => {
      this.secondary.release(performance.now());
      this.#pump();
    });
  }

  /** Gives the sender up, and tells it why. */
  fail(error: KemariError): void {
    this.#guard(() => {
      // Where the replica is kept is ours to mend: it says nothing about the sender.
      if (error instanceof TransportError && error.party === "replica") {
        this.secondary.storageFault(error);
      }
      this.#end(error);
    });
  }

  /** Faults end the session, not the process. */
  #guard(action: () => void): void {
    if (this.#state.at === "closed") return;
    try {
      action();
    } catch (error) {
      if (!(error instanceof KemariError) || error instanceof StateError) throw error;
      this.#end(error);
    }
  }

  /** Gets the refusal out before the connection is closed over unread bytes, which would eat it. */
  #end(error: KemariError, reason?: NackReason): void {
    if (this.#state.at !== "open") return;
    this.#state = { at: "refusing" };
    this.#hello.close();
    this.#cancelTick();
    this.secondary.refuse(error, reason);
    this.#peer.push(this.secondary.takeOutput());
    // Nobody waits for a silent sender to read it.
    let gone = reason === "silence" || error instanceof TransportError && reason === undefined &&
        !this.secondary.storageFailed;
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

  /** Gets out what is left to be said, and says then that this was all. */
  #sayLastWords(): void {
    let written = true;
    try {
      written = this.#peer.flush();
    } catch {
      // The sender's end comes by the other way.
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
    this.#take(count);
  }

  /** Takes what has been read, as far as its sender is let in. */
  #take(count: number): void {
    const read = this.#hello.take(this.#buffer.subarray(0, count));
    this.#carry.feed(read, 0, read.length, (bytes, start, end) => {
      return this.secondary.receive(bytes, start, end, performance.now());
    });
    this.#pump();
  }

  #tick(): void {
    this.#pauses.tick(this.#bootTimeMs(), this.secondary.peer?.graceMs);
    let silentMs = this.secondary.tick(performance.now());
    if (silentMs > 0) {
      // We may have been stopped ourselves: what the sender said meanwhile lies in the socket.
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
