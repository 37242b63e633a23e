import { INPUT_BYTES_PER_EPOCH } from "../../replica/events/tap_events.ts";
import { MAX_NET_FRAME_BYTES } from "../../txn/wire.ts";

/** What the world sends to one guest: what of it is copied, and what the guest has missed. */
export class GuestInputs {
  /** The guest stands still, and is told nothing. */
  isDeaf: boolean;
  /** Bytes of frames that may still be copied in this epoch. */
  #budget = INPUT_BYTES_PER_EPOCH;
  #isHeld = false;
  #copies: Uint8Array[] = [];
  /** Copies of frames that were given in this epoch. */
  #given: Uint8Array[] = [];
  #missed: readonly Uint8Array[] = [];

  constructor(isDeaf: boolean) {
    this.isDeaf = isDeaf;
  }

  /** What every QEMU that connects is to be given, until one has spoken. */
  get missed(): readonly Uint8Array[] {
    return this.#missed;
  }

  /** Copies a frame for the guest, if the epoch in which it is given has room for it. */
  copy(frame: Uint8Array): void {
    if (frame.length > this.#budget || frame.length > MAX_NET_FRAME_BYTES) return;
    this.#budget -= frame.length;
    this.#copies.push(frame.slice());
  }

  /** The guest has been given what was copied. @returns What of it nobody has taken yet. */
  takeCopies(): readonly Uint8Array[] {
    const copies = this.#copies;
    if (copies.length === 0) return copies;
    this.#copies = [];
    this.#given.push(...copies);
    return copies;
  }

  /** What is copied from now on is given in the next epoch. */
  hold(): void {
    this.#isHeld = true;
    this.#budget = INPUT_BYTES_PER_EPOCH;
  }

  give(): void {
    this.#isHeld = false;
  }

  /**
   * An epoch ends.
   *
   * @param isLate Whether some of what was given may not have been taken yet.
   * @returns What belongs to the next epoch as well.
   */
  epochEnds(isLate: boolean): readonly Uint8Array[] {
    if (!this.#isHeld) this.#budget = INPUT_BYTES_PER_EPOCH;
    const given = this.#given;
    this.#given = [];
    return isLate ? given : [];
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
