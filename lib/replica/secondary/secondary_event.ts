import type { Leave } from "../../txn/leave.ts";
import type { Hello } from "../../txn/hello.ts";
import type { DiskQuery } from "../events/disk_digest.ts";
import type { DiskCopy } from "../events/disk_copy.ts";
import type { LoadableState } from "./compose_replica.ts";
import type { TransactionSize } from "./machine_state.ts";

/** What to do next, other than moving bytes. */
export type SecondaryEvent =
  | { readonly kind: "hello"; readonly hello: Hello }
  | { readonly kind: "committed"; readonly transaction: number; readonly size: TransactionSize }
  /** A transaction is complete, and waits for {@link Secondary.release}. */
  | { readonly kind: "held"; readonly transaction: number; readonly state: LoadableState }
  /** The sender dropped a transaction on purpose. */
  | { readonly kind: "cancelled"; readonly transaction: number }
  /** Answer with {@link Secondary.answerDigests}, by a digest under this seed. */
  | { readonly kind: "digest-query"; readonly seedLow: number; readonly seedHigh: number }
  /** Answer with {@link Secondary.answerDiskQuery}, in the order of the queries. */
  | { readonly kind: "disk-query"; readonly query: DiskQuery; readonly copy: DiskCopy }
  /** The VM is ours: activate once the output has been written. */
  | { readonly kind: "handover"; readonly transaction: number }
  /** The sender ended the session on purpose, and has been told that we know: ours must not run. */
  | { readonly kind: "left"; readonly leave: Leave };

/** Counters since the start, over all sessions. */
export interface SecondaryCounters {
  committed: number;
  pages: number;
  zeroPages: number;
  payloadBytes: number;
  lastPayloadBytes: number;
}
