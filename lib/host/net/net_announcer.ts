import { encodeRarpAnnouncement, isAnnouncement } from "../../packet/arp.ts";
import type { Reactor } from "../system/reactor.ts";

/** Who told the world where the guest is now. */
export type AnnouncedBy =
  /** QEMU's self-announcement, or the guest's own gratuitous ARP. */
  | "guest"
  /** Nobody did in time, so kemari did. */
  | "kemari";

/** When to speak up, in ms after the time allowed has passed: frames get lost while links settle. */
const ROUNDS_MS = [0, 100, 300];

/** Sees to it that switches learn where an activated guest is, by whichever way is first. */
export class NetAnnouncer {
  #cancels: (() => void)[] = [];
  #isWatching = false;

  /**
   * @param say Sends a frame to the world, past everything that waits.
   * @param done Called once per {@link start}.
   */
  constructor(
    private readonly reactor: Reactor,
    private readonly say: (frame: Uint8Array) => void,
    private readonly done: (by: AnnouncedBy) => void,
  ) {}

  /** Whether frames should be shown to {@link saw}. */
  get isWatching(): boolean {
    return this.#isWatching;
  }

  /**
   * Waits for an announcement, and makes it after `withinMs` without one.
   *
   * @param mac Of the guest's network card.
   */
  start(mac: Uint8Array, withinMs: number): void {
    this.stop();
    this.#isWatching = true;
    const frame = encodeRarpAnnouncement(mac);
    this.#cancels = ROUNDS_MS.map((delayMs, round) =>
      this.reactor.after(withinMs + delayMs, () => {
        this.say(frame);
        if (round > 0) return;
        this.#isWatching = false;
        this.done("kemari");
      })
    );
  }

  /** A frame of the guest has reached the world. */
  saw(frame: Uint8Array): void {
    if (!this.#isWatching || !isAnnouncement(frame)) return;
    this.stop();
    this.done("guest");
  }

  stop(): void {
    this.#isWatching = false;
    for (const cancel of this.#cancels) cancel();
    this.#cancels = [];
  }
}
