import type { NetTap } from "./net_tap.ts";
import type { Reactor } from "../system/reactor.ts";

/** What is asked of each NIC. */
export type HeldInputs = Pick<
  NetTap,
  "holdInputs" | "areInputsTaken" | "giveUpOnInputs" | "giveInputs"
>;

/** How often QEMU's sockets are looked at, until they are empty. */
const LOOK_MS = 0.2;
/** How long a checkpoint waits for a QEMU that may not be reading at all. */
const PATIENCE_MS = 50;

/**
 * Keeps what the world sends from a guest that is about to be stopped, and says when QEMU has taken
 * what it was given before: what it reads while it stops the VM, it loses.
 *
 * The VM runs on meanwhile. A QEMU that does not read in time, since its guest takes no frames, is
 * waited for once; what it loses then is what its guest had no room for.
 */
export class InputHold {
  #cancel: (() => void) | undefined;
  #isHeld = false;

  /** @param onTaken Called on the loop where {@link hold} had to wait. */
  constructor(
    private readonly reactor: Reactor,
    private readonly nets: readonly HeldInputs[],
    private readonly onTaken: () => void,
  ) {}

  /** @returns Whether QEMU has taken everything; if not, `onTaken` follows, unless {@link give} comes first. */
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

  /** Gives the guest what has waited, and all to come. */
  give(): void {
    if (!this.#isHeld) return;
    this.#isHeld = false;
    this.#cancel?.();
    this.#cancel = undefined;
    for (const net of this.nets) net.giveInputs();
  }

  #areTaken(): boolean {
    // Each of them, so that all are asked at once.
    return this.nets.map((net) => net.areInputsTaken()).every((isTaken) => isTaken);
  }
}
