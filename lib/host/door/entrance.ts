/** The entrance for senders: a listening socket, and its antechamber. */
import { getLogger } from "@logtape/logtape";
import type { NackReason } from "../../txn/wire.ts";
import { KemariError } from "../../errors.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { type AdmitIp, type Listener, listenSocket, type SocketAddress } from "../system/socket.ts";
import type { BoundAddress } from "../system/sockaddr.ts";
import type { Transport } from "../system/transport.ts";
import { Antechamber, DOOR_LIMITS } from "./antechamber.ts";
import { StrangerLog } from "./stranger_log.ts";

const log = getLogger(["kemari", "recv"]);

/**
 * Connections that are accepted in one turn of the loop: so many connections hardly delay a
 * checkpoint.
 */
const ACCEPTED_AT_A_TIME = 16;

/** Why a sender is refused, in words. */
const WHY_NOT = {
  busy: "another sender is being served",
  activating: "its replica is about to become the VM",
  "taken-over": "its replica is the VM by now",
} as const satisfies Partial<Record<NackReason, string>>;

/** The user of an entrance. */
export interface EntranceOwner {
  /**
   * Makes a connection from a descriptor, which the connection owns from then on.
   *
   * @throws {KemariError} There are no usable credentials. The descriptor is closed.
   */
  connectionOf(fd: number, name: string): Transport;
  /** A sender has come, see {@link Antechamber}. */
  receive(sender: Transport, said: Uint8Array<ArrayBuffer>): void;
}

/** Accepts connections, and passes senders on. */
export class Entrance {
  readonly #listener: Listener;
  readonly #watch: Watch;
  readonly #owner: EntranceOwner;
  readonly #strangers: StrangerLog;
  readonly #antechamber: Antechamber;
  #strangerCount = 0;

  /**
   * Begins to listen.
   *
   * @param admit Checks whether listening at this address is allowed.
   * @throws {TransportError | UsageError}
   */
  static async open(
    listen: SocketAddress,
    admit: AdmitIp,
    reactor: Reactor,
    owner: EntranceOwner,
    signal: AbortSignal,
    limits = DOOR_LIMITS,
  ): Promise<Entrance> {
    const listener = await listenSocket(listen, reactor, signal, admit);
    log.info("listening on {address}", { address: listener.text });
    return new Entrance(listener, reactor, owner, limits);
  }

  private constructor(
    listener: Listener,
    reactor: Reactor,
    owner: EntranceOwner,
    limits: typeof DOOR_LIMITS,
  ) {
    this.#listener = listener;
    this.#owner = owner;
    this.#strangers = new StrangerLog(reactor);
    this.#antechamber = new Antechamber(reactor, {
      proven: (peer, said) => owner.receive(peer, said),
      stranger: ({ message }) => {
        this.#strangerCount++;
        this.#strangers.tell("a connection that was not a sender's", message);
      },
    }, limits);
    this.#watch = reactor.watch(listener.fd, { readable: () => this.#accept() });
    this.#watch.want(true, false);
  }

  /** Connections so far that did not come from a sender. */
  get strangers(): number {
    return this.#strangerCount;
  }

  /** The address that it listens at; undefined for a Unix socket. */
  get bound(): BoundAddress | undefined {
    return this.#listener.bound;
  }

  /**
   * Takes a connection that has come another way. @param peer Owned by the entrance from now on.
   */
  admit(peer: Transport): void {
    this.#antechamber.admit(peer);
  }

  /** Refuses a sender. @param sender Owned by the entrance from now on. */
  turnAway(sender: Transport, reason: keyof typeof WHY_NOT): void {
    this.#strangers.tell("another sender was refused", WHY_NOT[reason]);
    this.#antechamber.turnAway(sender, reason, WHY_NOT[reason]);
  }

  /** Closes the entrance; refused connections still get their time to read the reason. */
  close(): void {
    this.#antechamber.close();
    this.#strangers.close();
    this.#watch.stop();
    this.#listener.close();
  }

  #accept(): void {
    for (let count = 0; count < ACCEPTED_AT_A_TIME; count++) {
      const fd = this.#listener.accept();
      if (fd === undefined) return;
      const peer = this.#connectionOf(fd);
      if (peer !== undefined) this.#antechamber.admit(peer);
    }
  }

  #connectionOf(fd: number): Transport | undefined {
    try {
      return this.#owner.connectionOf(fd, this.#listener.text);
    } catch (error) {
      if (!(error instanceof KemariError)) throw error;
      // The credentials may be about to be replaced: present connections stay unaffected.
      log.error("nobody can be let in: {reason}", { reason: error.message });
      return undefined;
    }
  }
}
