/** What the sender's half is told, and what it tells. */
import type { HelloField } from "./hello_fields.ts";
import { type Hello, OFFERED_FEATURES, PROTOCOL_VERSION } from "./hello.ts";
import { BEGIN_FLAG } from "./wire.ts";

/** BEGIN's flags: whether the transaction is a whole state, and whether it goes by the replica. */
export const BEGIN_FLAGS = {
  "checkpoint": 0,
  "full": BEGIN_FLAG.FULL,
  "full-on-replica": BEGIN_FLAG.FULL | BEGIN_FLAG.BASED,
} as const;

/** How a sender presents itself, and how patient it is. */
export interface SenderConfig {
  readonly session: Uint8Array;
  readonly heartbeatMs: number;
  /** Silence from the peer after which it counts as lost. */
  readonly graceMs: number;
  readonly software: string;
  /** More to be said in HELLO. */
  readonly fields?: readonly HelloField[];
  /** Measures how long packing takes; without it nothing is packed. */
  readonly packingClock?: () => number;
}

/** What a sender says first. */
export function helloOf(options: SenderConfig): Hello {
  const { session, heartbeatMs, graceMs, software, fields } = options;
  return {
    version: PROTOCOL_VERSION,
    features: OFFERED_FEATURES,
    ...{ session, heartbeatMs, graceMs, software, fields },
    committed: 0,
    maxTransactionBytes: 0,
  };
}

/** What the peer said, or failed to say. */
export type SenderEvent =
  | { readonly kind: "ready"; readonly hello: Hello }
  /** The secondary has the transaction; `roundTripMs` counts from its COMMIT. */
  | { readonly kind: "acked"; readonly transaction: number; readonly roundTripMs: number }
  | { readonly kind: "digests"; readonly payload: Uint8Array; readonly last: boolean }
  /** The next part of the answer to the oldest query of a disk. */
  | { readonly kind: "disk-digests"; readonly payload: Uint8Array; readonly last: boolean }
  | { readonly kind: "handed-over" }
  /** The secondary knows that we leave it, and why. */
  | { readonly kind: "left" }
  /** Nothing was heard for longer than the grace time. */
  | { readonly kind: "lost"; readonly silentMs: number };

/** A transaction whose COMMIT is on its way. */
export interface InFlight {
  readonly transaction: number;
  readonly bytes: number;
  readonly committedAt: number;
}

/** Bytes that a sender has made, by what they are for; before packing, where that is done. */
export interface SentBytes {
  /** Of QEMU's stream, as forwarded. */
  stream: number;
  /** EVENT and INPUT payloads: packets both ways, and disk writes. */
  events: number;
  /** Frame headers, and the payloads of all other frames. */
  framing: number;
}
