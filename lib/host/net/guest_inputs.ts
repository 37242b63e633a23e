import { INPUT_BYTES_PER_EPOCH } from "../../replica/events/tap_events.ts";
import { MAX_NET_FRAME_BYTES } from "../../txn/wire.ts";

/** The frames that the world sends to a guest: which are copied, and which the guest has missed. */
export class GuestInputs {
  /** The guest stands still, and is given nothing. */
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

  /** Frames for every QEMU that connects, until a QEMU has sent a frame. */
  get missed(): readonly Uint8Array[] {
    return this.#missed;
  }

  /** Copies a frame for the guest, if the epoch in which it is given has room for it. */
  copy(frame: Uint8Array): void {
    if (frame.length > this.#budget || frame.length > MAX_NET_FRAME_BYTES) return;
    this.#budget -= frame.length;
    this.#copies.push(frame.slice());
  }

  /**
   * The guest has been given the copied frames. @returns The copies that were not taken for the
   * secondary yet.
   */
  takeCopies(): readonly Uint8Array[] {
    const copies = this.#copies;
    if (copies.length === 0) return copies;
    this.#copies = [];
    this.#given.push(...copies);
    return copies;
  }

  /** Frames that are copied from now on are given to the guest in the next epoch. */
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
   * @param isLate Whether QEMU may not have taken all that it was given.
   * @returns Copies of the frames that belong to the next epoch as well.
   */
  epochEnds(isLate: boolean): readonly Uint8Array[] {
    if (!this.#isHeld) this.#budget = INPUT_BYTES_PER_EPOCH;
    const given = this.#given;
    this.#given = [];
    return isLate ? given : [];
  }

  /**
   * The guest receives frames from now on.
   *
   * @param frames The frames that the guest has missed; owned by this object from now on. Of these
   *   the last are kept, as many as an epoch may have.
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

  /** A QEMU has the missed frames, and its guest is alive. */
  spoken(): void {
    if (this.#missed.length > 0) this.#missed = [];
  }
}
