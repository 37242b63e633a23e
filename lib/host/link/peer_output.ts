import type { Transport } from "../system/transport.ts";
import type { PeerInput } from "./peer_input.ts";

/**
 * How much of a checkpoint, and for how long, is gathered before the first part is written to the
 * peer.
 */
const GATHER_BYTES = 128 * 2 ** 10;
const GATHER_MS = 10;

/** Writes to the peer, and decides when. */
export class PeerOutput {
  readonly #transport: Transport;
  readonly #input: PeerInput;
  #wantsRoom = false;

  /** @param input Reads from the peer: when the peer has gone, its last message is the reason. */
  constructor(transport: Transport, input: PeerInput) {
    this.#transport = transport;
    this.#input = input;
  }

  /** Bytes ever queued. */
  get queued(): number {
    return this.#transport.queued;
  }
  /** Bytes ever written. */
  get written(): number {
    return this.#transport.written;
  }
  get pendingBytes(): number {
    return this.#transport.pendingBytes;
  }

  /** Whether the connection takes no more now, and is to be watched for room. */
  get wantsRoom(): boolean {
    return this.#wantsRoom;
  }

  push(pieces: readonly Uint8Array[]): void {
    this.#transport.push(pieces);
  }

  /**
   * Writes what can be written. While a small checkpoint is being read, nothing is written: the VM
   * stands still meanwhile, and each write would make it wait, and wake the peer for a part.
   *
   * @param readingSince Since when a checkpoint has been on its way from QEMU, on the clock of
   *   `performance.now()`; undefined between two.
   * @returns Whether everything is written, or need not be written any more: see {@link
   *   PeerInput.isOver}.
   * @throws {WireError | TransportError} the peer is gone; with the reason that it gave, if any.
   */
  flush(readingSince?: number): boolean {
    const gathers = readingSince !== undefined && this.pendingBytes < GATHER_BYTES &&
      performance.now() - readingSince < GATHER_MS;
    if (gathers) {
      this.#wantsRoom = false;
      return this.pendingBytes === 0;
    }
    try {
      const written = this.#transport.flush();
      this.#wantsRoom = !written;
      return written;
    } catch (error) {
      this.#wantsRoom = false;
      this.#input.takeLastWords();
      if (!this.#input.isOver) throw error;
      return true;
    }
  }
}
