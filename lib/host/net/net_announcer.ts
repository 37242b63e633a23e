import { encodeRarpAnnouncement, isAnnouncement } from "../../packet/arp.ts";
import type { Reactor } from "../system/reactor.ts";

/** What told the world where the guest is now. */
export type AnnouncedBy =
  /** QEMU's self-announcement, or the guest's own gratuitous ARP. */
  | "guest"
  /** Neither came in time, so kemari announced the guest. */
  | "kemari";

/**
 * When kemari announces, in ms after the allowed time has passed. Several times: frames get lost
 * while links settle.
 */
const ROUNDS_MS = [0, 100, 300];

/**
 * Makes sure that switches learn where an activated guest is: by QEMU, the guest or kemari,
 * whichever is first.
 */
export class NetAnnouncer {
  #cancels: (() => void)[] = [];
  #isWatching = false;

  /**
   * @param say Sends a frame to the world, ahead of all that waits.
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
   * Waits for an announcement, and announces the guest itself if there is none `withinMs`.
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
