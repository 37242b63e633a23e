import { KemariError, StateError, TransportError } from "../../errors.ts";
import { FrameSocket } from "./frame_socket.ts";
import { GuestInputs } from "./guest_inputs.ts";
import { libc } from "../system/libc.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import type { Listener } from "../system/socket.ts";
import type { UnixAddress } from "./net_tap_address.ts";

/**
 * After this number of frames QEMU is asked whether it has room for more, see {@link
 * NetIn.areInputsTaken}.
 */
const PROBE_FRAMES = 32;

/** Callbacks of the guest's side of a tap. Called on the loop; must not block. */
interface NetInHandlers {
  /** There are frames of the guest to be read. */
  readable(): void;
  /** The owner has to decide anew what to wait for. */
  changed(): void;
  /** QEMU has connected, or is gone. */
  guest(isConnected: boolean): void;
  fault(error: KemariError): void;
  /** The guest has been given these frames; they are copies. */
  inputs(frames: readonly Uint8Array[]): void;
}

/**
 * The guest's side of a tap: a socket to which QEMU's `-netdev stream` connects, and the world's
 * frames for the guest.
 *
 * QEMU loses what it reads while it stops a VM for a checkpoint (docs/QEMU.md says where), so
 * nothing may lie in its socket then:
 *
 * ```text
 * giving ──hold()──► held: QEMU reads what it was given, areInputsTaken; what comes waits here
 *    ▲                 │
 *    └─────give()──────┘
 * ```
 */
export class NetIn {
  readonly #listenerWatch: Watch;
  readonly #inputs: GuestInputs;
  #port: FrameSocket | undefined;
  #watch: Watch | undefined;
  #isBlocked = false;
  #isHeld = false;
  /** Some of the frames that are held may have been given to QEMU already. */
  #isBehind = false;
  /** A checkpoint has waited for QEMU, and QEMU has read nothing since. */
  #isStalled = false;
  /** How many frames were given since QEMU was last seen to have room for more. */
  #givenFrames = 0;
  #refusedGuests = 0;
  #passed = 0;

  constructor(
    readonly address: UnixAddress,
    private readonly reactor: Reactor,
    private readonly listener: Listener,
    private readonly maxFrameBytes: number | undefined,
    private readonly handlers: NetInHandlers,
    isDeaf: boolean,
  ) {
    this.#inputs = new GuestInputs(isDeaf);
    this.#listenerWatch = reactor.watch(listener.fd, { readable: () => this.#accept() });
    this.#listenerWatch.want(true, false);
  }

  get isConnected(): boolean {
    return this.#port !== undefined;
  }

  /** How many QEMUs were turned away because another was connected. */
  get refusedGuests(): number {
    return this.#refusedGuests;
  }

  /** How many frames the guest was sent. */
  get passed(): number {
    return this.#passed;
  }

  /** Whether all frames of one read from the world have room here. */
  get hasRoom(): boolean {
    if (!this.#isHeld || this.#port === undefined) return !this.#isBlocked;
    return this.#port.hasRoom;
  }

  /** Whether the guest's frames are wanted now. */
  want(frames: boolean): void {
    this.#watch?.want(frames, this.#isBlocked && !this.#isHeld);
  }

  /** Reads frames of the guest, at most about `budgetBytes`; views, valid during the call. */
  receive(budgetBytes: number, onFrame: (frame: Uint8Array) => void): "more" | "empty" | "end" {
    if (this.#port === undefined) return "end";
    try {
      const result = this.#port.receive(budgetBytes, (frame) => {
        this.#inputs.spoken();
        onFrame(frame);
      });
      if (result === "end") this.#drop();
      return result;
    } catch (error) {
      this.#drop(error);
      return "end";
    }
  }

  /**
   * Takes a frame for the guest; the next {@link flush} writes it.
   *
   * @param isCopied Whether `inputs` gets a copy of the frame.
   * @returns Whether there is a guest that may receive the frame.
   */
  send(frame: Uint8Array, isCopied: boolean): boolean {
    if (this.#inputs.isDeaf || !this.#port?.send(frame)) return false;
    this.#givenFrames++;
    this.#passed++;
    if (isCopied) this.#inputs.copy(frame);
    return true;
  }

  /** Writes the frames for the guest, unless they are held. */
  flush(): void {
    if (!this.#isHeld) {
      if (this.#port !== undefined) {
        try {
          this.#isBlocked = !this.#port.flush();
        } catch (error) {
          this.#drop(error);
        }
      }
      const copied = this.#inputs.takeCopies();
      if (copied.length > 0) this.handlers.inputs(copied);
    }
    this.handlers.changed();
  }

  /** The VM is about to be stopped: QEMU gets nothing more, until {@link give}. */
  hold(): void {
    if (this.#isHeld) return;
    this.#isHeld = true;
    this.#isBehind = this.#isBlocked;
    this.#inputs.hold();
    this.handlers.changed();
  }

  /** Gives the guest the frames that were held, and all that follow. */
  give(): void {
    if (!this.#isHeld) return;
    this.#isHeld = this.#isBehind = false;
    this.#inputs.give();
    this.flush();
  }

  /**
   * Whether QEMU has taken all that it was given.
   *
   * A QEMU whose guest's card has no room keeps frames in memory of its own, and reads no more
   * meanwhile: so after many frames QEMU must also read the first byte of the next frame's length,
   * which is zero.
   */
  areInputsTaken(): boolean {
    const port = this.#port;
    if (port === undefined) return true;
    if (port.isUnread) return this.#isStalled;
    this.#isStalled = false;
    if (this.#givenFrames < PROBE_FRAMES) return true;
    this.#givenFrames = 0;
    try {
      return !port.probe() || !port.isUnread;
    } catch (error) {
      this.#drop(error);
      return true;
    }
  }

  /** Checkpoints do not wait for QEMU any more, until it has taken the frames. */
  giveUpOnInputs(): void {
    this.#isStalled = this.#port?.isUnread === true;
  }

  /**
   * An epoch ends.
   *
   * @returns Copies of the frames that belong to the next epoch as well, since QEMU may not have
   *   read them.
   */
  epochEnds(): readonly Uint8Array[] {
    return this.#inputs.epochEnds(this.#isBehind || this.#port?.isUnread === true);
  }

  /** See `NetTap.hear`. */
  hear(frames: readonly Uint8Array[]): number {
    this.#inputs.hear(frames);
    this.#giveMissed();
    return this.#inputs.missed.length;
  }

  deafen(): void {
    this.#inputs.deafen();
  }

  close(): void {
    this.#listenerWatch.stop();
    this.listener.close();
    this.#watch?.stop();
    this.#port?.close();
    this.#port = undefined;
  }

  #accept(): void {
    const fd = this.listener.accept();
    if (fd === undefined) return;
    // The QEMU before may have died, and the end of its connection may not have been read yet.
    for (let i = 0; i < 2 && this.#port !== undefined; i++) this.handlers.readable();
    if (this.#port !== undefined) {
      libc().close(fd);
      this.#refusedGuests++;
      this.handlers.fault(
        new TransportError(this.address.text, "connect", "a second QEMU was turned away", {
          party: "net",
          hint: "each VM needs a --net socket of its own",
        }),
      );
      return;
    }
    this.#port = new FrameSocket(fd, this.address.text, this.maxFrameBytes);
    this.#isBlocked = this.#isStalled = false;
    this.#givenFrames = 0;
    this.#watch = this.reactor.watch(fd, {
      readable: () => this.handlers.readable(),
      writable: () => this.flush(),
    });
    this.handlers.guest(true);
    this.#giveMissed();
  }

  #giveMissed(): void {
    try {
      for (const frame of this.#inputs.missed) if (this.#port?.send(frame)) this.#passed++;
    } catch (error) {
      this.#drop(error);
    }
    this.flush();
  }

  #drop(error?: unknown): void {
    this.#watch?.stop();
    this.#port?.close();
    this.#port = undefined;
    this.#watch = undefined;
    this.#isBlocked = false;
    // Faults of this side go to the owner; any other error is a bug and ends the loop.
    if (error !== undefined) {
      if (!(error instanceof KemariError) || error instanceof StateError) throw error;
      this.handlers.fault(error);
    }
    this.handlers.guest(false);
    this.handlers.changed();
  }
}
