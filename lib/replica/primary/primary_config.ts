/** What the primary's end is told, and what it tells. */
import type { SenderEvent } from "../../txn/sender_config.ts";
import type { Treatment } from "./compression_policy.ts";

/** How the primary's end behaves. */
export interface PrimaryConfig {
  /** `sync`: the VM goes on after the ACK. `async`: as soon as its checkpoint has been read. */
  readonly commit: "sync" | "async";
  /**
   * What the stream is, where it does not say so itself; `auto` finds out. `snapshots` are plain
   * streams, each of which may end the bytes, and none of which gives the VM away.
   */
  readonly stream: "auto" | "plain" | "colo" | "snapshots";
  /**
   * How the end of a first pass is known that has no VMDESCRIPTION (`suppress-vmdesc=on`). `told`:
   * QEMU says over QMP that it is in COLO, and `FirstPass.enteredColo` passes that on. `silence`, the
   * default: what has come is a whole state, and QEMU, which waits for an answer, says no more.
   */
  readonly firstPassEnd?: "told" | "silence";
  /** Bytes of transactions without an ACK above which QEMU's next checkpoint has to wait. */
  readonly maxInFlightBytes: number;
  /** How less is made of what QEMU sends; its own bytes go out as they are without it. */
  readonly compression?: PrimaryCompression;
  /** What the guest says to the world, and writes; nothing is held without it. */
  readonly taps?: PrimaryTaps;
}

/** How less is made of what QEMU sends. */
export interface PrimaryCompression {
  /**
   * What may be done to a transaction, what leaves the fewest bytes first; of several, what proves
   * best is.
   */
  readonly treatments: readonly Treatment[];
  /** Memory for the pages sent last, which differences, and leaving pages out, need. */
  readonly cacheBytes: number;
}

/**
 * The primary's share of the event-tap, as the transactions drive it.
 *
 * An epoch is the time between two checkpoints. What the guest said in it is let go when the
 * transaction that ends it is acknowledged.
 */
export interface PrimaryTaps {
  /**
   * Whether something of what is acknowledged is still on its way out, to storage that takes its time:
   * the VM is not given away before.
   */
  readonly isReleasing?: boolean;
  /** QEMU asks for a checkpoint: the VM is about to be stopped. */
  checkpointRequested(): void;
  /**
   * QEMU is about to have leave to stop the VM: it is given nothing more for the guest.
   *
   * @returns Whether it has taken all that it was given. If not, it has no leave before
   *   `QemuDialogue.inputsTaken` is called.
   */
  holdInputs(): boolean;
  /** QEMU has been told that the VM goes on: the guest is given what was held. */
  giveInputs(): void;
  /** QEMU has leave to stop the VM, which drains its disks: none of their requests may wait now. */
  vmStops(): void;
  /** The VM stands still: takes in what it said and nobody has read yet. */
  drain(): void;
  /** What was recorded since the last call, in order, as EVENT payloads in pieces. */
  takeEvents(): Uint8Array[][];
  /** The open epoch ends with this transaction; what is recorded by now belongs to it. */
  closeEpoch(transaction: number): void;
  /**
   * The transaction is acknowledged: lets its epoch, and all before it, go. When they are out,
   * `Primary.released` is to be called.
   */
  release(transaction: number): void;
}

/** What to do next, other than moving bytes. */
export type PrimaryEvent =
  /** A plain stream and everything of it is at the secondary, which is now the VM's host. */
  | { readonly kind: "handed-over"; readonly transaction: number }
  /** The secondary has the transaction. */
  | { readonly kind: "committed"; readonly transaction: number }
  /** Transactions of the COLO stream follow from here on. */
  | { readonly kind: "colo" }
  /** QEMU asked for a checkpoint of a VM that is paused: it waits until the VM runs. */
  | { readonly kind: "paused" }
  /**
   * The pages of a full stream are about to come, and the peer has a replica: `Primary.queryDigests`
   * is to ask for the digests of its pages, so that those which it has need not be sent.
   */
  | { readonly kind: "wants-digests" }
  /** Of the session with the peer, as its sender tells it. */
  | Extract<SenderEvent, { readonly kind: "ready" | "disk-digests" | "left" | "lost" }>;
