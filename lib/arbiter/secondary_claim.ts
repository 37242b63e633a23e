/**
 * The side that keeps the replica, and whether it may run the VM: a state machine without I/O or
 * clock.
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
 * It is driven like the primary's: {@link askOfSecondary}, {@link answeredSecondary}. While it is
 * in `asking` no transaction is acknowledged and no session begins, whatever arrives ({@link
 * mayAcknowledge}): so the primary releases no further output, and the replica contains all output
 * released before. The VM is started only in `active`, which is entered when the register was seen
 * to name this process, or when the primary reports that it has written a handover into the
 * register.
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
  /** There is no replica, or the register does not name it. */
  | { readonly at: "unarmed" }
  /** The register names this replica. */
  | { readonly at: "armed"; readonly register: Protected }
  /**
   * The primary has stopped its VM, and is about to write into the register that the VM is ours.
   */
  | { readonly at: "given"; readonly register: Protected }
  | {
    readonly at: "asking";
    readonly from: Protected;
    readonly to: Alone;
    /** Why the register gives nobody a right at the moment: an operator has to intervene. */
    readonly doubt?: string;
  }
  | { readonly at: "active"; readonly register: Alone }
  /** The VM goes on elsewhere: the replica is useless. */
  | { readonly at: "beaten"; readonly register: Register };

/** Whether transactions may be acknowledged and sessions may begin. */
export function mayAcknowledge(claim: SecondaryClaim): boolean {
  return claim.at === "unarmed" || claim.at === "armed" || claim.at === "beaten";
}

/** The request that is due to the arbiter; undefined for none. */
export function askOfSecondary(claim: SecondaryClaim): Ask | undefined {
  return claim.at === "asking" ? { do: "swap", from: claim.from, to: claim.to } : undefined;
}

/** The events of this side. */
export type SecondaryNews =
  /** The primary reports that the register names this replica. */
  | { readonly is: "arm"; readonly register: Protected }
  /** A session begins: its data replaces the replica. */
  | { readonly is: "session" }
  /** The primary hands its VM over; the last transaction is acknowledged. */
  | { readonly is: "handed-over" }
  /** The primary reports that the register names this side. */
  | { readonly is: "named"; readonly register: Alone }
  /**
   * The session ended without notice, and the VM is to be taken over; or `kemari failover` was
   * called.
   */
  | { readonly is: "claim" };

/** Takes an event; events that do not apply in a state change nothing. */
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
 * @param ask The answered request.
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
