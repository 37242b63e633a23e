/** The configuration of the primary's end, what it uses, and its events. */
import type { SenderEvent } from "../../txn/sender_config.ts";
import type { Treatment } from "./compression_policy.ts";

/** The configuration of the primary's end. */
export interface PrimaryConfig {
  /** `sync`: the VM goes on after the ACK. `async`: as soon as its checkpoint has been read. */
  readonly commit: "sync" | "async";
  /**
   * The kind of the stream, if the stream itself does not say it; `auto` finds out. `snapshots` are
   * plain streams, after each of which the bytes may end, and none of which hands the VM over.
   */
  readonly stream: "auto" | "plain" | "colo" | "snapshots";
  /**
   * How to find the end of a first pass without VMDESCRIPTION (`suppress-vmdesc=on`). `told`: QEMU
   * says over QMP that it is in COLO, and `FirstPass.enteredColo` is called. `silence`, the
   * default: the bytes so far are a whole state, and QEMU, which waits for an answer, sends no
   * more.
   */
  readonly firstPassEnd?: "told" | "silence";
  /**
   * How many bytes of transactions may be without an ACK; above that QEMU's next checkpoint has to
   * wait.
   */
  readonly maxInFlightBytes: number;
  /** How to compress; undefined: QEMU's bytes are sent as they are. */
  readonly compression?: PrimaryCompression;
  /** The guest's output and disk writes; undefined: nothing is held. */
  readonly taps?: PrimaryTaps;
}

/** How to compress QEMU's stream. */
export interface PrimaryCompression {
  /**
   * The treatments to choose from, ordered by the bytes that they leave, fewest first. The one that
   * proves best is used.
   */
  readonly treatments: readonly Treatment[];
  /** Memory for the pages sent last, needed for differences and for leaving pages out. */
  readonly cacheBytes: number;
}

/**
 * The primary's share of the event-tap, as the transactions drive it.
 *
 * An epoch is the time between two checkpoints. Output of an epoch is released when the transaction
 * that ends the epoch is acknowledged.
 */
export interface PrimaryTaps {
  /**
   * Whether acknowledged writes are still on their way to slow storage: the VM is not handed over
   * before they are made.
   */
  readonly isReleasing?: boolean;
  /** QEMU asks for a checkpoint: the VM is about to be stopped. */
  checkpointRequested(): void;
  /**
   * QEMU is about to get leave to stop the VM: it is given no more frames for the guest.
   *
   * @returns Whether QEMU has taken all frames that it was given. If not, it gets no leave before
   *   `QemuDialogue.inputsTaken` is called.
   */
  holdInputs(): boolean;
  /** QEMU has been told that the VM goes on: the guest is given the held frames. */
  giveInputs(): void;
  /** QEMU has leave to stop the VM, which drains its disks: none of their requests may wait now. */
  vmStops(): void;
  /** The VM stands still: reads its output that was not read yet. */
  drain(): void;
  /** The events recorded since the last call, in order, as EVENT payloads in pieces. */
  takeEvents(): Uint8Array[][];
  /** The open epoch ends with this transaction, to which everything recorded by now belongs. */
  closeEpoch(transaction: number): void;
  /**
   * The transaction is acknowledged: releases its epoch and all before it. When they have left,
   * `Primary.released` is to be called.
   */
  release(transaction: number): void;
}

/** What the owner has to do, other than moving bytes. */
export type PrimaryEvent =
  /** The secondary has everything of a plain stream, and is now the VM's host. */
  | { readonly kind: "handed-over"; readonly transaction: number }
  /** The secondary has the transaction. */
  | { readonly kind: "committed"; readonly transaction: number }
  /** Transactions of the COLO stream follow from here on. */
  | { readonly kind: "colo" }
  /** QEMU asked for a checkpoint of a VM that is paused: it waits until the VM runs. */
  | { readonly kind: "paused" }
  /**
   * The pages of a full stream are about to come, and the peer has a replica:
   * `Primary.queryDigests` is to ask for the digests of its pages, so that equal pages need not be
   * sent.
   */
  | { readonly kind: "wants-digests" }
  /** Events of the session with the peer, passed on from the sender. */
  | Extract<SenderEvent, { readonly kind: "ready" | "disk-digests" | "left" | "lost" }>;
