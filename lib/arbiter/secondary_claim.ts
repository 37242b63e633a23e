/**
 * The side that keeps the replica, and whether it may run it: a state machine without I/O or clock.
 *
 * ```text
 *                arm              lost, failover            won
 *   unarmed ────────────► armed ──────────────────► asking ──────► active
 *      ▲  ▲                │ │ handedOver   lost      │ ▲             ▲
 *      │  └────session─────┘ └────────► given ────────┼─┘             │
 *      │                                 └────────────┼──────told─────┘
 *      └────────────── session ── beaten ◄────────────┘
 * ```
 *
 * It is driven as the primary's is: {@link askOfSecondary}, {@link answeredSecondary}. While it is in
 * `asking` no transaction is acknowledged and no session begins, whatever arrives
 * ({@link mayAcknowledge}): what the primary has let go by then is all that it ever lets go, and the
 * replica has it. The VM is started in `active` only, which is entered when the register was seen to
 * name this process, or the primary has said so of a handover that it wrote there by itself.
 */
import { type Answer, type Ask, isSameAsk } from "./claim.ts";
import {
  type Alone,
  aloneAfter,
  isEqual,
  isSameSide,
  type Protected,
  type Register,
  type Side,
} from "./register.ts";

export type SecondaryClaim =
  /** There is no replica, or none of which the register speaks. */
  | { readonly at: "unarmed" }
  /** The replica is the one that the register speaks of. */
  | { readonly at: "armed"; readonly register: Protected }
  /** The primary has stopped its VM, and is about to write into the register that it is ours. */
  | { readonly at: "given"; readonly register: Protected }
  | {
    readonly at: "asking";
    readonly from: Protected;
    readonly to: Alone;
    /** Why the register gives no right to anybody at the moment: an operator has to look. */
    readonly doubt?: string;
  }
  | { readonly at: "active"; readonly register: Alone }
  /** The VM goes on elsewhere: the replica is of no use. */
  | { readonly at: "beaten"; readonly register: Register };

/** Whether transactions may be acknowledged, and sessions begin. */
export function mayAcknowledge(claim: SecondaryClaim): boolean {
  return claim.at === "unarmed" || claim.at === "armed" || claim.at === "beaten";
}

/** What is to be asked of the arbiter now; undefined for nothing. */
export function askOfSecondary(claim: SecondaryClaim): Ask | undefined {
  return claim.at === "asking" ? { do: "swap", from: claim.from, to: claim.to } : undefined;
}

/** What happens at this side. */
export type SecondaryNews =
  /** The primary says that the register speaks of this replica. */
  | { readonly is: "arm"; readonly register: Protected }
  /** A session begins: what it brings replaces the replica. */
  | { readonly is: "session" }
  /** The primary hands its VM over; the last transaction is acknowledged. */
  | { readonly is: "handed-over" }
  /** The primary says that the register names this side. */
  | { readonly is: "named"; readonly register: Alone }
  /** The session ended without a word, and the VM is to be taken over for that; or by `kemari failover`. */
  | { readonly is: "claim" };

/** Tells the machine what has happened; what does not apply in a state changes nothing. */
export function toldSecondary(
  claim: SecondaryClaim,
  news: SecondaryNews,
  me: Side,
): SecondaryClaim {
  switch (news.is) {
    case "arm":
      return claim.at === "unarmed" && isSameSide(news.register.secondary, me)
        ? { at: "armed", register: news.register }
        : claim;
    case "session":
      return mayAcknowledge(claim) ? { at: "unarmed" } : claim;
    case "handed-over":
      return claim.at === "armed" ? { at: "given", register: claim.register } : claim;
    case "named":
      return claim.at === "given" && isEqual(news.register, aloneAfter(claim.register, me))
        ? { at: "active", register: news.register }
        : claim;
    case "claim":
      return claim.at === "armed" || claim.at === "given"
        ? { at: "asking", from: claim.register, to: aloneAfter(claim.register, me) }
        : claim;
  }
}

/**
 * Takes the arbiter's answer.
 *
 * @param ask What it answers.
 * @param me This process.
 */
export function answeredSecondary(
  claim: SecondaryClaim,
  ask: Ask,
  answer: Answer,
  me: Side,
): SecondaryClaim {
  if (claim.at !== "asking" || !isSameAsk(ask, askOfSecondary(claim))) return claim;
  switch (answer.is) {
    case "unknown":
      return claim;
    case "won":
      return { at: "active", register: claim.to };
    case "foreign":
      return { ...claim, doubt: answer.why };
    case "current":
      return judge(claim, answer.register, me);
  }
}

function judge(
  claim: Extract<SecondaryClaim, { at: "asking" }>,
  register: Register | undefined,
  me: Side,
): SecondaryClaim {
  if (register === undefined) {
    return { ...claim, doubt: "the register is gone: somebody has deleted it" };
  }
  if (isEqual(register, claim.from)) return claim;
  if (register.generation <= claim.from.generation) {
    return { ...claim, doubt: `the register went back to generation ${register.generation}` };
  }
  // An operator has named this side.
  if (register.state === "alone" && isSameSide(register.side, me)) {
    return { at: "active", register };
  }
  return { at: "beaten", register };
}
