import { getLogger } from "@logtape/logtape";
import { KemariError } from "../../errors.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { type Listener, listenSocket, type SocketAddress } from "../system/socket.ts";
import type { Transport } from "../system/transport.ts";
import type { LinkGuard } from "../tls/link_guard.ts";
import { socketDescriptors } from "./peer_connection.ts";

const log = getLogger(["kemari", "recv"]);

/** Where senders connect to. Who they are is shown by the first use of what they come with. */
export class LinkListener {
  readonly #listener: Listener;
  readonly #guard: LinkGuard;
  readonly #watch: Watch;
  readonly #came: (peer: Transport) => void;

  private constructor(
    listener: Listener,
    guard: LinkGuard,
    reactor: Reactor,
    came: (peer: Transport) => void,
  ) {
    this.#listener = listener;
    this.#guard = guard;
    this.#came = came;
    this.#watch = reactor.watch(listener.fd, { readable: () => this.#accept() });
    this.#watch.want(true, false);
  }

  /**
   * Begins to listen.
   *
   * @param came Is given each connection, and owns it.
   * @throws {TransportError | UsageError}
   */
  static async open(
    address: SocketAddress,
    guard: LinkGuard,
    reactor: Reactor,
    signal: AbortSignal,
    came: (peer: Transport) => void,
  ): Promise<LinkListener> {
    const admit = (ip: Uint8Array) => guard.admit(ip, address.text);
    return new LinkListener(
      await listenSocket(address, reactor, signal, admit),
      guard,
      reactor,
      came,
    );
  }

  /** With the port that the system chose, where port 0 was asked for. */
  get text(): string {
    return this.#listener.text;
  }

  close(): void {
    this.#watch.stop();
    this.#listener.close();
  }

  #accept(): void {
    const fd = this.#listener.accept();
    if (fd === undefined) return;
    let peer: Transport;
    try {
      peer = this.#guard.transport(socketDescriptors(fd, this.text));
    } catch (error) {
      if (!(error instanceof KemariError)) throw error;
      // Our credentials may be about to be replaced: whoever is here already is not to suffer.
      return log.error("nobody can be let in: {reason}", { reason: error.message });
    }
    this.#came(peer);
  }
}
