import type { Behind } from "./failover.ts";
import type { SecondaryEnd } from "./secondary_end.ts";

/**
 * Whether a replica is the last state of its VM, over all sessions of a `recv`.
 *
 * ```text
 *            senderCame()                    committed()
 * unknown ─────────────────► returned ──────────────────────► current
 *                             ▲    │ ended("no-sender"): what it was before
 *                             │    └──────────────────────►
 *   goes-on, vm-ended,        │
 *   refused, storage, away ───┘◄── ended(…)
 * ```
 *
 * **Why no later state is overlooked.** A replica counts as current only from a commit in a session
 * until something shows that the VM has gone on without this secondary: the sender's LEAVE, a
 * refusal by this end, a standstill of this process, or a sender that connects again, whose VM may
 * have run in between. A loss does not show that, since the VM's output after its last transaction
 * was held at the primary. A connection that turned out to be of another VM changes nothing.
 */
export class ReplicaAge {
  #behind: Behind | undefined = "unknown";
  /** Its value when the session's sender came; undefined without a session. */
  #before: { readonly behind: Behind | undefined } | undefined;

  /** Why the replica is not the VM's last state; undefined if it is. */
  get behind(): Behind | undefined {
    return this.#behind;
  }

  /** A sender has sent HELLO, and was admitted. */
  senderCame(): void {
    this.#before = { behind: this.#behind };
    this.#behind = "returned";
  }

  /** The sender has committed a transaction. */
  committed(): void {
    this.#behind = undefined;
  }

  /**
   * A session has ended.
   *
   * @param stoodStill Whether the sender may have given this end up because this process stood
   *   still.
   */
  ended(end: SecondaryEnd, stoodStill: boolean): void {
    const before = this.#before;
    this.#before = undefined;
    switch (end) {
      case "no-sender":
        if (before !== undefined) this.#behind = before.behind;
        return;
      case "lost":
      case "yielded":
        if (stoodStill) this.#behind ??= "away";
        return;
      default:
        this.#behind = end;
    }
  }
}
