import { TransportError, WireError } from "../../errors.ts";
import { Carry } from "../../bytes/carry.ts";
import { stoppingSecondary } from "./lost_secondary.ts";
import type { Primary } from "../../replica/primary/primary.ts";
import type { Transport } from "../system/transport.ts";

const BUFFER_BYTES = 256 * 1024;
/** Read in one turn of the loop: a peer that does not stop talking keeps nobody else waiting. */
const MOST_READ_BYTES = 4 * 2 ** 20;

/** Reads what the secondary sends, and hands it to the primary. */
export class PeerInput {
  readonly #transport: Transport;
  readonly #primary: Primary;
  readonly #carry = new Carry();
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #hasEnded = false;

  constructor(transport: Transport, primary: Primary) {
    this.#transport = transport;
    this.#primary = primary;
  }

  /**
   * Whether the peer has sent the last message of this session: everything behind it is ignored.
   */
  get isOver(): boolean {
    return this.#primary.isOver;
  }

  /** Whether the end of the connection was read. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /**
   * Reads what is there, or as much of it as one turn takes, up to the peer's last message: see
   * {@link isOver}.
   *
   * @returns `ended` if the peer closed the connection.
   * @throws {TransportError} if it cannot be read, or says that its process ends.
   * @throws {WireError} if the peer refused, or broke the protocol.
   */
  take(): "ended" | undefined {
    for (let bytes = 0; !this.isOver && bytes < MOST_READ_BYTES;) {
      const count = this.#transport.read(this.#buffer);
      if (count === undefined) return;
      if (count === 0) {
        this.#hasEnded = true;
        return "ended";
      }
      this.#receive(count);
      bytes += count;
      if (count < this.#buffer.length) return;
    }
  }

  /** Reads the rest of a connection that failed. @throws as {@link take}, where the peer has said why. */
  takeLastWords(): void {
    for (let bytes = 0; !this.isOver && bytes < MOST_READ_BYTES;) {
      let count: number | undefined;
      try {
        count = this.#transport.read(this.#buffer);
      } catch (error) {
        // A peer that did not let us in has said so by TLS's own means.
        if (error instanceof TransportError && error.phase === "handshake") throw error;
        return;
      }
      if (!count) return;
      this.#receive(count);
      bytes += count;
    }
  }

  #receive(count: number): void {
    const now = performance.now();
    try {
      this.#carry.feed(this.#buffer, 0, count, (bytes, start, end) => {
        return this.#primary.receivePeer(bytes, start, end, now);
      });
    } catch (error) {
      const isStopping = error instanceof WireError && error.fault === "stopping";
      throw isStopping ? stoppingSecondary(this.#transport.name, error) : error;
    }
  }
}
