/**
 * For tests: what an end has to make of any frame's header, read off the table of rules, and written
 * apart from the code that enforces it.
 */
import type { WireFault } from "../../errors.ts";
import type { FrameHeader } from "../frame_header.ts";
import { type End, FRAME_RULES, type FrameName, frameName, type StateOf } from "../frame_rules.ts";
import type { FeatureName } from "../hello.ts";
import type { NackReason } from "../wire.ts";

/** Where an end stands. */
export interface Standing<E extends End = End> {
  readonly end: E;
  readonly state: StateOf<E>;
  /** What both have offered. */
  readonly agreed: readonly FeatureName[];
  /** The last transaction before the session. */
  readonly before: number;
  /** The transaction that is open, or was committed last. */
  readonly transaction: number;
  /** The last one that is acknowledged. */
  readonly acknowledged: number;
  /** What the next frame of the open transaction has as its sequence. */
  readonly sequence: number;
  /** What waits for an answer. */
  readonly waiting: readonly FrameName[];
}

/** What becomes of a frame. */
export type Verdict =
  | { readonly is: "taken" }
  /** It is not looked at. */
  | { readonly is: "passed over" }
  /** The session ends. A receiver says why in a NACK; a sender closes. */
  | { readonly is: "refused"; readonly fault: WireFault; readonly nack: NackReason };

/** Whether nothing that comes means anything any more. */
export function isOver({ end, state }: Standing): boolean {
  return state === "over" || state === "done" || end === "receiver" && state === "handover";
}

/** Judges a header; what is in the payload is another question. */
export function judge(standing: Standing, header: FrameHeader): Verdict {
  const { end, state, agreed } = standing;
  if (isOver(standing)) return { is: "passed over" };
  const refused = (fault: WireFault): Verdict => ({ is: "refused", fault, nack: "protocol" });
  const name = frameName(header.command);
  if (name === undefined) return refused("bad-value");
  const rule = FRAME_RULES[name];
  const { transaction } = header;
  if (!rule.flags.includes(header.flags)) return refused("bad-value");
  if (rule.sequence === "zero" && header.sequence !== 0) return refused("bad-value");
  if (transaction > Number.MAX_SAFE_INTEGER) return refused("bad-value");
  const kind = rule.transaction;
  if (transaction !== 0 && kind === "none") return refused("bad-value");
  if (transaction === 0 && kind !== "none" && kind !== "refused") return refused("bad-value");
  const [least, most] = rule.bytes;
  const isBare = rule.payloadNeeds !== undefined && !agreed.includes(rule.payloadNeeds);
  if (header.lengthBytes > most) return refused("bad-length");
  if (header.lengthBytes < least && rule.payloadNeeds === undefined) return refused("bad-length");
  const takenIn: readonly string[] = rule.takenIn[end] ?? [];
  if (!takenIn.includes(state)) return refused("bad-order");
  if (rule.needs !== undefined && !agreed.includes(rule.needs)) return refused("bad-order");
  if (isBare ? header.lengthBytes !== 0 : header.lengthBytes < least) return refused("bad-length");
  if (!isTransactionRight(standing, name, transaction)) return refused("bad-order");
  if (rule.sequence === "counted" && header.sequence !== standing.sequence) {
    return refused("bad-order");
  }
  if (rule.answers?.every((asked) => !standing.waiting.includes(asked))) {
    return refused("bad-order");
  }
  return { is: "taken" };
}

function isTransactionRight(standing: Standing, name: FrameName, found: number): boolean {
  const { transaction, acknowledged } = standing;
  switch (FRAME_RULES[name].transaction) {
    case "open":
      return found === transaction;
    case "next":
      return found === transaction + 1;
    case "acknowledged":
      return found <= acknowledged;
    case "last":
      return found === transaction && found === acknowledged && found > standing.before;
    case "oldest":
      return found === (standing.state === "handover" ? transaction : acknowledged + 1);
    default:
      return true;
  }
}
