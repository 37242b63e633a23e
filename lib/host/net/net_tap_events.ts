import type { KemariError } from "../../errors.ts";
import type { HeldLimits } from "../../replica/events/held_frames.ts";
import type { AnnouncedBy } from "./net_announcer.ts";

/** Callbacks of a tap, for its owner. Called on the loop; must not block. */
export interface NetTapEvents {
  /** The first frame of the open epoch is held: a reason to synchronize. */
  held?(): void;
  /**
   * While frames are held: the world has sent these frames to the guest, which has them by now;
   * they are copies. At most INPUT_BYTES_PER_EPOCH in an epoch; frames beyond that are not copied.
   */
  inputs?(frames: readonly Uint8Array[]): void;
  /**
   * The queue of held frames is full: a synchronization is needed. QEMU's socket is not read until
   * frames have left, so the guest's card fills up and the guest waits; nothing is dropped.
   */
  full?(): void;
  /** All frames of this epoch and of those before it are out. */
  released?(epoch: number): void;
  /** QEMU has connected, or is gone. */
  guest?(isConnected: boolean): void;
  /** Behind `announce`: the world knows where the guest is. */
  announced?(by: AnnouncedBy): void;
  /** One side has failed. The tap goes on: QEMU may connect again, and OUT is opened again. */
  fault?(error: KemariError): void;
  /** OUT works again after a fault. */
  restored?(): void;
}

/** How a tap behaves; all optional. */
export interface NetTapSettings {
  readonly events?: NetTapEvents;
  /** Default: 16,384 frames, 64 MiB. */
  readonly limits?: HeldLimits;
  /** Whether to hold from the first frame on. Default: pass through. */
  readonly holdFrames?: boolean;
  /** Whether to drop the world's frames until {@link NetTap.hear}, since the guest stands still. */
  readonly isDeaf?: boolean;
  /** Longer frames are a fault of the side that sends them. */
  readonly maxFrameBytes?: number;
}
