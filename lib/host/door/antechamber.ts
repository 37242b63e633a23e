/** Connections wait here until they have shown that they come from a sender. */
import { KemariError, TransportError } from "../../errors.ts";
import { reasonOf } from "../../replica/secondary/refusal_reason.ts";
import { encodeConnectionRefusal } from "../../txn/refusal.ts";
import type { NackReason } from "../../txn/wire.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import type { Transport } from "../system/transport.ts";
import { closeAfterLastWords } from "./close_after_last_words.ts";
import { FirstWords } from "./first_words.ts";

/** Limits for connections of strangers. */
export interface DoorLimits {
  /** How many connections may wait; for one more, the oldest is closed. */
  readonly waiting: number;
  /** How many refused connections may stay open to read the reason. */
  readonly leaving: number;
  /**
   * How long a connection may take to send HELLO, including a handshake. Between connecting and
   * HELLO a sender marks the disks' images, and allows their storage five seconds.
   */
  readonly helloMs: number;
}

export const DOOR_LIMITS: DoorLimits = { waiting: 64, leaving: 64, helloMs: 10_000 };

/** Size of a read: a HELLO usually has a few hundred bytes. */
const READ_BYTES = 4096;

/** The owner, which decides what happens to a sender. */
export interface AntechamberOwner {
  /**
   * A connection comes from a sender.
   *
   * @param peer Owned by the callee from now on.
   * @param said All bytes received so far: a whole and valid HELLO, and perhaps bytes after it.
   */
  proven(peer: Transport, said: Uint8Array<ArrayBuffer>): void;
  /**
   * A connection did not come from a sender: it has got the reason, if it can receive it, and is
   * closed.
   */
  stranger(error: KemariError): void;
}

/** State of a connection. */
type NewcomerState =
  /** It may still send HELLO. */
  | { readonly at: "waiting"; readonly watch: Watch; readonly cancel: () => void }
  /** It belongs to the owner, or is being refused, or is closed. */
  | { readonly at: "gone" };

/** A connection. */
interface Newcomer {
  readonly peer: Transport;
  readonly words: FirstWords;
  state: NewcomerState;
}

/**
 * Keeps new connections apart from the current session until a whole, valid HELLO has come: before
 * that, nothing is started, looked up or given up for them.
 *
 * ```text
 * admit() ──► waiting ──HELLO is whole──► proven(): the owner's ──turnAway()──┐
 *               │ │ └──other words, or too late──► told why ──────────────────┤
 *               │ └──it has closed, or must make room for a newer one──► gone │
 *               └──close()──► gone ◄──it has closed, 1 s, or too many leave───┘
 * ```
 *
 * A handshake, if there is one, is part of the wait: a {@link Transport} gives no data before its
 * handshake is done.
 */
export class Antechamber {
  readonly #reactor: Reactor;
  readonly #owner: AntechamberOwner;
  readonly #limits: DoorLimits;
  readonly #buffer = new Uint8Array(READ_BYTES);
  /** Waiting connections, the oldest first. */
  readonly #waiting = new Set<Newcomer>();
  /** Functions that close the refused connections at once; the oldest first. */
  readonly #leaving = new Set<{ close(): void }>();

  constructor(reactor: Reactor, owner: AntechamberOwner, limits = DOOR_LIMITS) {
    this.#reactor = reactor;
    this.#owner = owner;
    this.#limits = limits;
  }

  /** Connections that may still send HELLO. */
  get waiting(): number {
    return this.#waiting.size;
  }
  /** Connections that have been turned away, and are not closed yet. */
  get leaving(): number {
    return this.#leaving.size;
  }

  /** Takes a connection, which this object owns from now on. */
  admit(peer: Transport): void {
    const newcomer: Newcomer = { peer, words: new FirstWords(), state: { at: "gone" } };
    const look = () => this.#look(newcomer);
    const watch = peer.watch(this.#reactor, { readable: look, writable: look });
    const cancel = this.#reactor.after(this.#limits.helloMs, () => this.#late(newcomer));
    newcomer.state = { at: "waiting", watch, cancel };
    this.#waiting.add(newcomer);
    if (this.#waiting.size > this.#limits.waiting) this.#makeRoom();
    this.#look(newcomer);
  }

  /**
   * Tells a connection why it is refused, and closes it.
   *
   * @param peer Owned by this object from now on.
   */
  turnAway(peer: Transport, reason: NackReason, text: string): void {
    try {
      peer.push(encodeConnectionRefusal(reason, `${peer.name}: ${text}`));
      peer.flush();
    } catch {
      // The peer has given up by itself.
    }
    const guest = { close: () => {} };
    this.#leaving.add(guest);
    guest.close = closeAfterLastWords(peer, this.#reactor, () => this.#leaving.delete(guest));
    if (this.#leaving.size > this.#limits.leaving) first(this.#leaving)!.close();
  }

  /**
   * Closes all waiting connections. Refused connections still get their time to read the reason.
   */
  close(): void {
    for (const newcomer of [...this.#waiting]) if (this.#take(newcomer)) newcomer.peer.close();
  }

  /** Closes the oldest waiting connection, unless its HELLO has just come. */
  #makeRoom(): void {
    const oldest = first(this.#waiting)!;
    this.#look(oldest);
    if (!this.#take(oldest)) return;
    oldest.peer.close();
    const { waiting } = this.#limits;
    this.#owner.stranger(fault(oldest.peer, `no HELLO yet, and ${waiting} others have come since`));
  }

  #late(newcomer: Newcomer): void {
    this.#look(newcomer);
    if (!this.#take(newcomer)) return;
    const what = `no HELLO in ${this.#limits.helloMs / 1000} s`;
    this.turnAway(newcomer.peer, "protocol", what);
    this.#owner.stranger(fault(newcomer.peer, what));
  }

  /** Reads what the connection has sent, and decides whether it is a sender's. */
  #look(newcomer: Newcomer): void {
    if (newcomer.state.at === "gone") return;
    const { peer, words } = newcomer;
    try {
      // A handshake may have bytes to send.
      newcomer.state.watch.want(true, !peer.flush());
      if (this.#hear(newcomer) === "more") return;
    } catch (error) {
      if (!(error instanceof KemariError)) throw error;
      this.#take(newcomer);
      if (error instanceof TransportError) peer.close();
      else this.turnAway(peer, reasonOf(error), error.message);
      return this.#owner.stranger(error);
    }
    this.#take(newcomer);
    this.#owner.proven(peer, words.said);
  }

  #hear({ peer, words }: Newcomer): "more" | "hello" {
    for (;;) {
      const count = peer.read(this.#buffer);
      if (count === undefined) return "more";
      if (count === 0) throw fault(peer, "it has closed the connection before a HELLO");
      if (words.add(this.#buffer.subarray(0, count)) === "hello") return "hello";
    }
  }

  /** Ends a connection's wait. @returns Whether it was waiting: then the caller owns it. */
  #take(newcomer: Newcomer): boolean {
    if (newcomer.state.at === "gone") return false;
    newcomer.state.cancel();
    newcomer.state.watch.stop();
    newcomer.state = { at: "gone" };
    return this.#waiting.delete(newcomer);
  }
}

function first<T>(items: Iterable<T>): T | undefined {
  for (const item of items) return item;
  return undefined;
}

function fault(peer: Transport, what: string): TransportError {
  return new TransportError(peer.name, "read", what, { party: "peer" });
}
