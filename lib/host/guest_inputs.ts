import { INPUT_BYTES_PER_EPOCH, MAX_INPUT_FRAME_BYTES } from "../replica/tap_events.ts";

/** What the world sends to one guest: what of it is copied, and what the guest has missed. */
export class GuestInputs {
  /** The guest stands still, and is told nothing. */
  isDeaf: boolean;
  /** Bytes of frames that may still be copied in this epoch. */
  #budget = INPUT_BYTES_PER_EPOCH;
  #copies: Uint8Array[] = [];
  #missed: readonly Uint8Array[] = [];

  constructor(isDeaf: boolean) {
    this.isDeaf = isDeaf;
  }

  /** What every QEMU that connects is to be given, until one has spoken. */
  get missed(): readonly Uint8Array[] {
    return this.#missed;
  }

  /** Copies a frame that the guest has been given, if the epoch has room for it. */
  copy(frame: Uint8Array): void {
    if (frame.length > this.#budget || frame.length > MAX_INPUT_FRAME_BYTES) return;
    this.#budget -= frame.length;
    this.#copies.push(frame.slice());
  }

  /** Takes what has been copied since the last call. */
  takeCopies(): readonly Uint8Array[] {
    const copies = this.#copies;
    if (copies.length > 0) this.#copies = [];
    return copies;
  }

  epochEnds(): void {
    this.#budget = INPUT_BYTES_PER_EPOCH;
  }

  /**
   * The guest hears the world from now on.
   *
   * @param frames What it has missed; taken over. The last count that are no more than an epoch's.
   */
  hear(frames: readonly Uint8Array[]): void {
    this.isDeaf = false;
    let first = frames.length;
    for (let bytes = 0; first > 0; first--) {
      bytes += frames[first - 1].length;
      if (bytes > INPUT_BYTES_PER_EPOCH) break;
    }
    this.#missed = frames.slice(first);
  }

  deafen(): void {
    this.isDeaf = true;
    this.#missed = [];
  }

  /** A QEMU has what was missed, and its guest lives. */
  spoken(): void {
    if (this.#missed.length > 0) this.#missed = [];
  }
}
