import type { TakeoverCause } from "../../decisions/takeover_plan.ts";
import type { ReceiverSession } from "./receiver_session.ts";

/** Why a secondary does not receive any more; after `vm-ended` it has nothing more to do. */
export type ReceiverVerdict = TakeoverCause | "vm-ended";

/** The states of the receiver. */
export type ReceiverState =
  /** No sender is connected, and a sender may come. */
  | { readonly at: "free" }
  | { readonly at: "serving"; readonly session: ReceiverSession }
  /** `kemari failover` was accepted, and the sender is being told to stop its VM. */
  | { readonly at: "yielding"; readonly session: ReceiverSession }
  /** @property decidedAt In milliseconds of performance.now(). */
  | { readonly at: "decided"; readonly verdict: ReceiverVerdict; readonly decidedAt: number }
  /** The VM runs here. */
  | { readonly at: "active" }
  /** This process is about to end: the end of the session does not matter any more. */
  | { readonly at: "ending"; readonly session: ReceiverSession | undefined };
