import { Carry } from "../../bytes/carry.ts";
import { TransportError } from "../../errors.ts";
import type { Primary } from "../../replica/primary/primary.ts";
import type { Transport } from "../system/transport.ts";

const BUFFER_BYTES = 256 * 1024;

/** What the secondary says: read off its connection, and handed to the primary. */
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

  /** Whether the peer has said its last word of this session: nothing behind it is news. */
  get isOver(): boolean {
    return this.#primary.isOver;
  }

  /** Whether the connection's end was read: nothing follows, however often it is read again. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /**
   * Takes what is there, up to the peer's last word: see {@link isOver}.
   *
   * @returns `ended` if the peer closed the connection.
   * @throws {TransportError} if it cannot be read.
   * @throws {WireError} if the peer refused, or broke the protocol.
   */
  take(): "ended" | undefined {
    while (!this.isOver) {
      const count = this.#transport.read(this.#buffer);
      if (count === undefined) return;
      if (count === 0) {
        this.#hasEnded = true;
        return "ended";
      }
      this.#receive(count);
      if (count < this.#buffer.length) return;
    }
  }

  /** Takes what there still is of a connection that failed. @throws as {@link take}, where the peer has said why. */
  takeLastWords(): void {
    while (!this.isOver) {
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
    }
  }

  #receive(count: number): void {
    const now = performance.now();
    this.#carry.feed(this.#buffer, 0, count, (bytes, start, end) => {
      return this.#primary.receivePeer(bytes, start, end, now);
    });
  }
}
