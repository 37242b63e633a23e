/** Where connections wait until they have shown that they are a sender's. */
import { KemariError, TransportError } from "../../errors.ts";
import { reasonOf } from "../../replica/secondary/refusal_reason.ts";
import { encodeConnectionRefusal } from "../../txn/refusal.ts";
import type { NackReason } from "../../txn/wire.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import type { Transport } from "../system/transport.ts";
import { closeAfterLastWords } from "./close_after_last_words.ts";
import { FirstWords } from "./first_words.ts";

/** What strangers may cost. */
export interface DoorLimits {
  /** Connections that wait; the oldest has to go for one more. */
  readonly waiting: number;
  /** Connections that have been told why they are not wanted, and may not have read it yet. */
  readonly leaving: number;
  /**
   * How long one may take to say HELLO; a handshake before it counts too. A sender puts its marks at
   * the disks' images between connecting and HELLO, and gives their storage five seconds for that.
   */
  readonly helloMs: number;
}

export const DOOR_LIMITS: DoorLimits = { waiting: 64, leaving: 64, helloMs: 10_000 };

/** Read at a time: a HELLO usually has a few hundred bytes. */
const READ_BYTES = 4096;

/** Who decides what becomes of a sender. */
export interface AntechamberOwner {
  /**
   * A connection is a sender's.
   *
   * @param peer The owner's from now on.
   * @param said All that it has said: a whole and valid HELLO, and what may stand behind it.
   */
  proven(peer: Transport, said: Uint8Array<ArrayBuffer>): void;
  /** One was none: it has been told so, as far as it can be told anything, and is closed. */
  stranger(error: KemariError): void;
}

/** Where one connection is. */
type NewcomerState =
  /** It may still say HELLO. */
  | { readonly at: "waiting"; readonly watch: Watch; readonly cancel: () => void }
  /** It is the owner's, or leaving, or closed. */
  | { readonly at: "gone" };

/** One that has connected. */
interface Newcomer {
  readonly peer: Transport;
  readonly words: FirstWords;
  state: NewcomerState;
}

/**
 * Keeps whoever connects apart from the session under way until a whole, valid HELLO has come: nothing
 * is begun, looked up or given up for anybody before.
 *
 * ```text
 * admit() ──► waiting ──HELLO is whole──► proven(): the owner's ──turnAway()──┐
 *               │ │ └──other words, or too late──► told why ──────────────────┤
 *               │ └──it has closed, or must make room for a newer one──► gone │
 *               └──close()──► gone ◄──it has closed, 1 s, or too many leave───┘
 * ```
 *
 * A connection's handshake, if there is one, is a part of its waiting: a {@link Transport} gives
 * nothing to be read before that is done.
 */
export class Antechamber {
  readonly #reactor: Reactor;
  readonly #owner: AntechamberOwner;
  readonly #limits: DoorLimits;
  readonly #buffer = new Uint8Array(READ_BYTES);
  /** The oldest first. */
  readonly #waiting = new Set<Newcomer>();
  /** Each can be closed at once; the oldest first. */
  readonly #leaving = new Set<{ close(): void }>();

  constructor(reactor: Reactor, owner: AntechamberOwner, limits = DOOR_LIMITS) {
    this.#reactor = reactor;
    this.#owner = owner;
    this.#limits = limits;
  }

  /** Connections that may still say HELLO. */
  get waiting(): number {
    return this.#waiting.size;
  }
  /** Connections that have been turned away, and are not closed yet. */
  get leaving(): number {
    return this.#leaving.size;
  }

  /** Takes a connection, which is this object's from now on. */
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
   * Tells a connection why it is not wanted, and closes it.
   *
   * @param peer This object's from now on.
   */
  turnAway(peer: Transport, reason: NackReason, text: string): void {
    try {
      peer.push(encodeConnectionRefusal(reason, `${peer.name}: ${text}`));
      peer.flush();
    } catch {
      // It has given up by itself.
    }
    const guest = { close: () => {} };
    this.#leaving.add(guest);
    guest.close = closeAfterLastWords(peer, this.#reactor, () => this.#leaving.delete(guest));
    if (this.#leaving.size > this.#limits.leaving) first(this.#leaving)!.close();
  }

  /** Closes all that wait. Those that leave have their moment still. */
  close(): void {
    for (const newcomer of [...this.#waiting]) if (this.#take(newcomer)) newcomer.peer.close();
  }

  /** The oldest of those that wait has to go, unless it has said HELLO just now. */
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

  /** Takes what it has said meanwhile, which decides what it is. */
  #look(newcomer: Newcomer): void {
    if (newcomer.state.at === "gone") return;
    const { peer, words } = newcomer;
    try {
      // A handshake may have something to say.
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

  /** Ends its waiting. @returns Whether it did wait: it is the caller's then. */
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
