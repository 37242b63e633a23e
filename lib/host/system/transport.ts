/** One connection to the other end: bytes in, bytes out, and what the reactor waits for meanwhile. */
import type { Party } from "../../errors.ts";
import { OutputQueue, type ReadResult, readSome, shutdownWrite } from "./channel.ts";
import type { Reactor, Watch, WatchHandlers } from "./reactor.ts";

/** How a connection is kept from others. */
export type Encryption =
  | { readonly kind: "none" }
  /** By the ssh that the connection goes through. */
  | { readonly kind: "ssh" }
  | {
    readonly kind: "tls";
    /** Who the peer has proven to be: a key's name, or a certificate's; undefined before. */
    readonly peer?: string;
    /** TLS's name for it. */
    readonly cipher?: string;
    /** Whether the kernel encrypts what we send. */
    readonly inKernel?: boolean;
  };

/**
 * A connection, whatever carries its bytes and whether or not they are encrypted on the way.
 *
 * Where there is a handshake, {@link read} and {@link flush} get it done: until it is, nothing is
 * read, and what is pushed waits. So a peer's first byte is a proof that the peer may speak.
 */
export interface Transport {
  /** As the user wrote it, for messages. */
  readonly name: string;
  /** True where output can be ended while input goes on. */
  readonly isSocket: boolean;
  readonly encryption: Encryption;
  /** Bytes ever pushed. */
  readonly queued: number;
  /** Bytes ever written, as they were pushed: encryption's own are not counted. */
  readonly written: number;
  /** Bytes pushed and not written. */
  readonly pendingBytes: number;

  /**
   * Begins to wait for the connection. `readable` means that {@link read} may have something,
   * `writable` that {@link flush} may get further, whatever the connection itself has to do for that.
   * One watch at a time.
   */
  watch(reactor: Reactor, handlers: WatchHandlers): Watch;

  /**
   * Reads what is there into `buffer`.
   *
   * @returns A count; 0 at the end that the peer has made; undefined when nothing is there yet.
   * @throws {TransportError} The connection is lost, or its peer is not whom we expect.
   */
  read(buffer: Uint8Array<ArrayBuffer>): ReadResult;

  /** Queues pieces, which stay the caller's and must not change before {@link written} has passed them. */
  push(pieces: readonly Uint8Array[]): void;

  /**
   * Writes until all is written, or the connection takes no more now.
   *
   * @returns True when nothing is left.
   * @throws {TransportError} as {@link read}.
   */
  flush(): boolean;

  /** Says that nothing more will be written; what was written still arrives. */
  endOutput(): void;

  /** Closes the connection, in order where it still can be; what is pushed and not written is lost. */
  close(): void;
}

/** The descriptors that a connection is made of, which may be the same one. */
export interface Descriptors {
  readonly input: number;
  readonly output: number;
  readonly name: string;
  readonly isSocket: boolean;
  /** Gives both back. */
  close(): void;
}

/** Bytes as they are, over descriptors. */
export class PlainTransport implements Transport {
  readonly encryption: Encryption;
  readonly name: string;
  readonly isSocket: boolean;
  readonly #descriptors: Descriptors;
  readonly #party: Party;
  readonly #output: OutputQueue;

  /**
   * @param descriptors Closed with this.
   * @param encryption By whoever stands behind them.
   */
  constructor(descriptors: Descriptors, party: Party, encryption: Encryption = { kind: "none" }) {
    this.encryption = encryption;
    this.name = descriptors.name;
    this.isSocket = descriptors.isSocket;
    this.#descriptors = descriptors;
    this.#party = party;
    this.#output = new OutputQueue(descriptors.output, descriptors.name, party);
  }

  get queued(): number {
    return this.#output.queued;
  }
  get written(): number {
    return this.#output.written;
  }
  get pendingBytes(): number {
    return this.#output.pendingBytes;
  }

  watch(reactor: Reactor, handlers: WatchHandlers): Watch {
    if (this.#descriptors.input === this.#descriptors.output) {
      return reactor.watch(this.#descriptors.input, handlers);
    }
    const input = reactor.watch(this.#descriptors.input, { readable: handlers.readable });
    const output = reactor.watch(this.#descriptors.output, { writable: handlers.writable });
    return {
      want(reads, writes) {
        input.want(reads, false);
        output.want(false, writes);
      },
      stop() {
        input.stop();
        output.stop();
      },
    };
  }

  read(buffer: Uint8Array<ArrayBuffer>): ReadResult {
    return readSome(this.#descriptors.input, buffer, this.name, this.#party);
  }

  push(pieces: readonly Uint8Array[]): void {
    this.#output.push(pieces);
  }

  flush(): boolean {
    return this.#output.flush();
  }

  endOutput(): void {
    if (this.isSocket) shutdownWrite(this.#descriptors.output);
  }

  close(): void {
    this.#descriptors.close();
  }
}
