import { StateError } from "../../errors.ts";
import { MAC_BYTES } from "../../packet/ethernet.ts";
import { type HeldEpoch, HeldFrames, type HeldLimits } from "../../replica/events/held_frames.ts";
import type { RecentDurations } from "../../control/recent_durations.ts";
import { RECEIVE_BUDGET_BYTES } from "./frame_socket.ts";
import { NetAnnouncer } from "./net_announcer.ts";
import { NetIn } from "./net_in.ts";
import { NetOut } from "./net_out.ts";
import type { NetTapEvents, NetTapSettings } from "./net_tap_events.ts";
import type { NetTapCounters } from "../../control/tap_status.ts";
import type { Reactor } from "../system/reactor.ts";
import { type Listener, listenSocket } from "../system/socket.ts";
import type { NetTapAddress } from "./net_tap_address.ts";

export const DEFAULT_LIMITS: HeldLimits = { maxFrames: 16_384, maxBytes: 64 << 20 };
/** How much is read in one turn of the loop, so that other descriptors get their turn. */
const READ_BUDGET_BYTES = 256 * 1024;
/**
 * How much is read from a stopped guest, at the most: no more than a socket holds. A guest that ran
 * on would never end.
 */
const DRAIN_ROUNDS = 64;
const ANNOUNCE_WITHIN_MS = 300;

/**
 * The connection of a NIC to the world: QEMU's `-netdev stream` on one side, a TAP or a socket on
 * the other.
 *
 * World → guest frames pass at once. Guest → world frames pass at once, or are held until their
 * epoch is released (see {@link HeldFrames}, which alone decides which frames may leave).
 */
export class NetTap {
  readonly #held: HeldFrames;
  readonly #announcer: NetAnnouncer;
  #events: NetTapEvents;
  readonly #guest: NetIn;
  #isFull = false;
  #guestMac: Uint8Array | undefined;
  #passedOut = 0;
  #releasedFrames = 0;
  #droppedNoGuest = 0;

  private constructor(
    readonly address: NetTapAddress,
    reactor: Reactor,
    listener: Listener,
    readonly out: NetOut,
    settings: NetTapSettings,
  ) {
    this.#events = settings.events ?? {};
    this.#held = new HeldFrames(settings.limits ?? DEFAULT_LIMITS);
    if (settings.holdFrames) this.#held.hold();
    this.#guest = new NetIn(address.in, reactor, listener, settings.maxFrameBytes, {
      readable: () => this.#onGuestReadable(),
      changed: () => this.#updateWants(),
      guest: (isConnected) => this.#events.guest?.(isConnected),
      fault: (error) => this.#events.fault?.(error),
      inputs: (frames) => this.#events.inputs?.(frames),
    }, settings.isDeaf ?? false);
    this.#announcer = new NetAnnouncer(
      reactor,
      (frame) => {
        out.send(frame);
        out.flush();
      },
      (by) => this.#events.announced?.(by),
    );
  }

  /**
   * Opens OUT, then listens on IN.
   *
   * @throws {TransportError} with a hint: no permission, no such device, nobody listens there.
   */
  static async open(
    address: NetTapAddress,
    reactor: Reactor,
    settings: NetTapSettings,
    signal: AbortSignal,
  ): Promise<NetTap> {
    let tap: NetTap | undefined;
    const out = await NetOut.open(address.out, reactor, settings.maxFrameBytes, {
      readable: () => void (tap && tap.#onOutReadable()),
      writable: () => void (tap && tap.#pump()),
      fault: (error) => (tap === undefined ? settings.events : tap.#events)?.fault?.(error),
      restored: () => (tap === undefined ? settings.events : tap.#events)?.restored?.(),
    }, signal);
    try {
      return tap = new NetTap(
        address,
        reactor,
        await listenSocket(address.in, reactor, signal),
        out,
        settings,
      );
    } catch (error) {
      out.close();
      throw error;
    }
  }

  get name(): string {
    return this.address.name;
  }

  /** Whether frames that the guest sends now wait for their epoch. */
  get isHolding(): boolean {
    return this.#held.isHolding;
  }

  /** How many frames the open epoch has. */
  get openFrames(): number {
    return this.#held.openFrames;
  }

  /** The hardware address that the guest last sent from; a copy. */
  get guestMac(): Uint8Array | undefined {
    return this.#guestMac;
  }

  get counters(): NetTapCounters {
    const held = this.#held;
    return {
      heldFrames: held.heldFrames,
      heldBytes: held.heldBytes,
      queuedFrames: held.queuedFrames,
      queuedBytes: held.queuedBytes,
      passedOut: this.#passedOut,
      releasedFrames: this.#releasedFrames,
      passedIn: this.#guest.passed,
      droppedNoGuest: this.#droppedNoGuest,
      droppedByOut: this.out.refusedFrames,
      refusedGuests: this.#guest.refusedGuests,
      guestConnected: this.#guest.isConnected,
      outConnected: this.out.isConnected,
      hold: held.holdTime.summary(),
    };
  }

  /** How long frames were held lately, see {@link NetTapCounters.hold}. */
  recentHolds(): RecentDurations {
    return this.#held.holdTime.recent();
  }

  /** Sends events to another owner from now on. */
  follow(events: NetTapEvents): void {
    this.#events = events;
  }

  /** From now on frames of the guest wait until their epoch is released. */
  hold(): void {
    this.#held.hold();
  }

  /**
   * The secondary is lost and the VM goes on: all held frames leave in order, and all that follow.
   */
  passThrough(): void {
    this.#held.passThrough();
    this.#pump();
  }

  /**
   * Reads everything that QEMU's socket holds now, whatever the limits say. To be called when the
   * VM is stopped, so that its frames commit with this checkpoint and not with the next.
   */
  drain(): void {
    for (let i = 0; i < DRAIN_ROUNDS && this.#receiveFromGuest() === "more"; i++);
    this.#pump();
  }

  /**
   * Ends the open epoch.
   *
   * @param epoch The epoch's number, greater than all before.
   * @returns The epoch's frames, which stay the tap's and never change.
   */
  closeEpoch(epoch: number): HeldEpoch {
    const late = this.#guest.epochEnds();
    if (late.length > 0) this.#events.inputs?.(late);
    return this.#held.closeEpoch(epoch);
  }

  /** This epoch's transaction, and all after it, were cancelled: their frames are open again. */
  reopenEpochs(from: number): void {
    this.#held.reopenEpochs(from);
  }

  /**
   * The epoch's transaction is acknowledged: its frames leave, behind those of all epochs before.
   */
  release(epoch: number): void {
    this.#held.release(epoch);
    this.#pump();
  }

  /**
   * Sends the frames of the primary's guest that may not have left the primary, before any frame of
   * the activated guest.
   *
   * @param frames Owned by the tap from now on.
   * @throws {StateError} if frames are held: these would be held too.
   */
  replay(frames: readonly Uint8Array[]): void {
    if (this.#held.isHolding) throw new StateError("frames replayed into a tap that holds");
    const now = performance.now();
    for (const frame of frames) this.#held.add(frame, now);
    this.#pump();
  }

  /**
   * From now on the guest is given the world's frames; first those sent before that the guest may
   * not have received, or has forgotten with its primary. QEMU keeps them until the VM runs.
   *
   * @param frames Owned by the tap from now on. Of these the last are given, as many as an epoch
   *   may have.
   * @returns How many are given.
   */
  hear(frames: readonly Uint8Array[]): number {
    return this.#guest.hear(frames);
  }

  /** The guest stands still again, and is given nothing. */
  deafen(): void {
    this.#guest.deafen();
  }

  /**
   * The VM is about to be stopped: from now on the world's frames wait here, up to a socket's
   * capacity and half a megabyte, and beyond that in OUT's own queue.
   */
  holdInputs(): void {
    this.#guest.hold();
  }

  /** Whether QEMU has taken all that it was given, or was given nothing. */
  areInputsTaken(): boolean {
    return this.#guest.areInputsTaken();
  }

  /** QEMU does not take its frames: checkpoints do not wait for it until it has. */
  giveUpOnInputs(): void {
    this.#guest.giveUpOnInputs();
  }

  /**
   * The VM runs, or is about to: the guest is given the frames that have waited, in order, and all
   * that follow.
   */
  giveInputs(): void {
    this.#guest.give();
  }

  /**
   * The guest has been activated here: if its own announcement does not reach OUT within
   * `withinMs`, one is sent for it.
   */
  announce(mac: Uint8Array, withinMs = ANNOUNCE_WITHIN_MS): void {
    this.#announcer.start(mac, withinMs);
  }

  /** Closes everything. Held frames are never sent. */
  close(): void {
    this.#announcer.stop();
    this.#guest.close();
    this.out.close();
  }

  #onGuestReadable(): void {
    const openBefore = this.#held.openFrames;
    this.#receiveFromGuest();
    this.#pump();
    if (!this.#held.isHolding) return;
    if (openBefore === 0 && this.#held.openFrames > 0) this.#events.held?.();
    if (this.#held.isFull && !this.#isFull) {
      this.#isFull = true;
      this.#events.full?.();
    }
  }

  #receiveFromGuest(): "more" | "empty" | "end" {
    const now = performance.now();
    const held = this.#held;
    let isFirst = true;
    return this.#guest.receive(READ_BUDGET_BYTES, (frame) => {
      if (isFirst) {
        this.#learnMac(frame);
        isFirst = false;
      }
      if (held.isHolding || held.queuedFrames > 0 || !this.#sendOut(frame)) {
        held.add(frame.slice(), now);
      } else this.#passedOut++;
    });
  }

  #learnMac(frame: Uint8Array): void {
    const known = this.#guestMac;
    let same = known !== undefined;
    for (let i = 0; i < MAC_BYTES && same; i++) same = known![i] === frame[MAC_BYTES + i];
    if (!same && (frame[MAC_BYTES] & 1) === 0) {
      this.#guestMac = frame.slice(MAC_BYTES, 2 * MAC_BYTES);
    }
  }

  /** Sends a frame of the guest to the world, if OUT takes it now. */
  #sendOut(frame: Uint8Array): boolean {
    if (!this.out.send(frame)) return false;
    if (this.#announcer.isWatching) this.#announcer.saw(frame);
    return true;
  }

  /** Sends the frames that may leave, and sets what to wait for. */
  #pump(): void {
    const now = performance.now();
    for (let next = this.#held.peek(); next !== undefined; next = this.#held.peek()) {
      if (!this.#sendOut(next)) break;
      if (this.#held.taken(now)) this.#releasedFrames++;
      else this.#passedOut++;
    }
    // Only written frames have left: the last ones may still be in the port's buffer.
    if (this.out.flush()) {
      const epoch = this.#held.takeLeftEpoch();
      if (epoch !== undefined) this.#events.released?.(epoch);
    }
    this.#updateWants();
  }

  #onOutReadable(): void {
    // A frame that was read must have a place.
    const guest = this.#guest;
    if (!guest.hasRoom) return;
    const isCopied = this.#held.isHolding && this.#events.inputs !== undefined;
    this.out.receive(RECEIVE_BUDGET_BYTES, (frame) => {
      if (!guest.send(frame, isCopied)) this.#droppedNoGuest++;
    });
    // The guest's frames first: the world waits for them.
    guest.flush();
  }

  #updateWants(): void {
    if (!this.#held.isFull) this.#isFull = false;
    this.#guest.want(!this.#held.isFull);
    this.out.want(this.#guest.hasRoom);
  }
}
