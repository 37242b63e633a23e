import type { NetTap } from "./net_tap.ts";
import type { Reactor } from "../system/reactor.ts";

/** The part of a NIC's tap that this needs. */
export type HeldInputs = Pick<
  NetTap,
  "holdInputs" | "areInputsTaken" | "giveUpOnInputs" | "giveInputs"
>;

/** How often QEMU's sockets are checked until they are empty. */
const LOOK_MS = 0.2;
/** How long a checkpoint waits for a QEMU that may not be reading at all. */
const PATIENCE_MS = 50;

/**
 * Holds the world's frames back from a guest that is about to be stopped, and tells when QEMU has
 * taken what it was given before: QEMU loses what it reads while it stops the VM.
 *
 * The VM runs on meanwhile. If QEMU does not read in time, since its guest takes no frames, only
 * one checkpoint waits for it; QEMU then loses only frames for which its guest had no room.
 */
export class InputHold {
  #cancel: (() => void) | undefined;
  #isHeld = false;

  /** @param onTaken Called on the loop if {@link hold} had to wait. */
  constructor(
    private readonly reactor: Reactor,
    private readonly nets: readonly HeldInputs[],
    private readonly onTaken: () => void,
  ) {}

  /**
   * @returns Whether QEMU has taken everything; if not, `onTaken` follows, unless {@link give}
   * comes before.
   */
  hold(): boolean {
    this.#isHeld = true;
    for (const net of this.nets) net.holdInputs();
    if (this.#areTaken()) return true;
    const givenUpAt = performance.now() + PATIENCE_MS;
    const look = () => {
      this.#cancel = undefined;
      if (!this.#areTaken()) {
        if (performance.now() < givenUpAt) {
          this.#cancel = this.reactor.after(LOOK_MS, look);
          return;
        }
        for (const net of this.nets) net.giveUpOnInputs();
      }
      this.onTaken();
    };
    this.#cancel?.();
    this.#cancel = this.reactor.after(LOOK_MS, look);
    return false;
  }

  /** Gives the guest the frames that have waited, and all that follow. */
  give(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#cancel?.();
    this.#cancel = undefined;
    for (const net of this.nets) net.giveInputs();
  }

  #areTaken(): boolean {
    // No short cut: every NIC has to begin to hold.
    return this.nets.map((net) => net.areInputsTaken()).every((isTaken) => isTaken);
  }
}
