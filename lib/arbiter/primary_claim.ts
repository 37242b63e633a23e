/**
 * The side that runs the VM, and what it may say: a state machine without I/O or clock.
 *
 * ```text
 *              answered         fill           whole               won
 *   starting ──────────► claiming    alone ───────► filling ───────► joining ──────► protected
 *                          │ │ ▲       ▲  ▲           │ lost            │ lost       lost │ │ give
 *                    beaten│ └─┼──won──┘  └───────────┘                 ▼                 │ ▼
 *                          ▼   └────────────────────────────────────────┴─────────────────┤ giving
 *                        ended ◄──────────────────────────────────────────────won─────────┼───┘
 *                              (claiming) ◄───────────────────────────────────────────────┘ takeBack
 * ```
 *
 * How it is driven: after each step the host asks what {@link askOf} says, unless that was asked already,
 * and hands the answer to {@link answered}, with what it answers; an answer to something that is not
 * asked any more changes nothing. Where the answer was `unknown` it asks again, after a while. What may
 * leave is {@link speaks}; whether the VM may run is {@link runs}.
 *
 * **Why no two sides speak.** The VM's output goes out unseen by anybody only in `alone`, and that state
 * is entered only when the register was seen to name this very process. From there nobody else can
 * change the register: a secondary changes it only from `protected`, the comparison includes the
 * generation, and this side writes `protected` only once it holds its output (`filling` comes first).
 * When it gives up on a secondary whose joining was never answered, it moves the generation on: the
 * request that is still under way can then no longer win.
 *
 * **Why nothing acknowledged is lost.** In every other state only that leaves which the secondary has
 * acknowledged. A secondary that claims the VM has stopped acknowledging before it asks; so what it has
 * contains all that was let go.
 */
import { type Answer, type Ask, isSameAsk } from "./claim.ts";
import {
  type Alone,
  aloneAfter,
  isEqual,
  isSameSide,
  type Protected,
  protectedAfter,
  type Register,
  type Side,
} from "./register.ts";

export type PrimaryClaim =
  /** The register is read for the first time. `known` is what this host had last seen in it. */
  | { readonly at: "starting"; readonly vm: string; readonly known: Register | undefined }
  /** `isStart`: this process has never had the VM, so that its side's earlier process may have had it. */
  | {
    readonly at: "claiming";
    readonly from: Register | undefined;
    readonly to: Alone;
    readonly isStart: boolean;
    /** Why the register gives no right to anybody at the moment: an operator has to look. */
    readonly doubt?: string;
  }
  | { readonly at: "alone"; readonly register: Alone }
  /** A secondary gets its first whole replica, and from its checkpoint on output waits for it. */
  | { readonly at: "filling"; readonly register: Alone }
  | { readonly at: "joining"; readonly from: Alone; readonly to: Protected }
  | { readonly at: "protected"; readonly register: Protected }
  /** The VM is stopped, and the secondary has all of it. */
  | { readonly at: "giving"; readonly from: Protected; readonly to: Alone }
  | {
    readonly at: "ended";
    readonly why: "beaten" | "given" | "not-ours";
    readonly register: Register;
  };

/** What a primary begins with. */
export function startPrimary(vm: string, known?: Register): PrimaryClaim {
  return { at: "starting", vm, known };
}

/** What may leave: everything, what the secondary has acknowledged, or nothing at all. */
export function speaks(claim: PrimaryClaim): "everything" | "acknowledged" | "nothing" {
  switch (claim.at) {
    case "alone":
      return "everything";
    case "starting":
    case "ended":
      return "nothing";
    default:
      return "acknowledged";
  }
}

/** Whether the VM may run at this side. */
export function runs(claim: PrimaryClaim): boolean {
  return claim.at !== "giving" && claim.at !== "ended";
}

/** What is to be asked of the arbiter now; undefined for nothing. */
export function askOf(claim: PrimaryClaim): Ask | undefined {
  switch (claim.at) {
    case "starting":
      return { do: "read" };
    case "claiming":
    case "joining":
    case "giving":
      return { do: "swap", from: claim.from, to: claim.to };
    default:
      return undefined;
  }
}

/** What happens at this side. */
export type PrimaryNews =
  /** A secondary's first whole replica is being taken: output is held from this checkpoint on. */
  | { readonly is: "fill" }
  /** It has acknowledged that. */
  | { readonly is: "whole"; readonly secondary: Side }
  /** The session with it has ended, or is given up. */
  | { readonly is: "lost" }
  /** The VM is stopped for a handover, and the secondary has acknowledged its last transaction. */
  | { readonly is: "give" }
  /** The handover is given up: the VM is to run on here. */
  | { readonly is: "take-back" };

/** Tells the machine what has happened; what does not apply in a state changes nothing. */
export function told(claim: PrimaryClaim, news: PrimaryNews, me: Side): PrimaryClaim {
  switch (claim.at) {
    case "alone":
      return news.is === "fill" ? { at: "filling", register: claim.register } : claim;
    case "filling":
      if (news.is === "lost") return { at: "alone", register: claim.register };
      if (news.is !== "whole") return claim;
      return {
        at: "joining",
        from: claim.register,
        to: protectedAfter(claim.register, news.secondary),
      };
    case "joining":
      return news.is === "lost" ? claimFrom(claim.from, me) : claim;
    case "protected":
      if (news.is === "lost") return claimFrom(claim.register, me);
      if (news.is !== "give") return claim;
      return {
        at: "giving",
        from: claim.register,
        to: aloneAfter(claim.register, claim.register.secondary),
      };
    case "giving":
      return news.is === "take-back" ? claimFrom(claim.from, me) : claim;
    default:
      return claim;
  }
}

function claimFrom(from: Register, me: Side, isStart = false): PrimaryClaim {
  return { at: "claiming", from, to: aloneAfter(from, me), isStart };
}

/**
 * Takes the arbiter's answer.
 *
 * @param ask What it answers.
 * @param me This process.
 */
export function answered(claim: PrimaryClaim, ask: Ask, answer: Answer, me: Side): PrimaryClaim {
  if (answer.is === "unknown" || !isSameAsk(ask, askOf(claim))) return claim;
  switch (claim.at) {
    case "starting":
      // A read is never won.
      return answer.is === "current" ? first(claim, answer.register, me) : claim;
    case "claiming":
      if (answer.is === "won") return { at: "alone", register: claim.to };
      return judge(claim, answer, me);
    case "joining":
      if (answer.is === "won") return { at: "protected", register: claim.to };
      // Whatever is there instead, protection has failed, and the generation is to be moved on.
      return answered(
        claimFrom(claim.from, me),
        { do: "swap", from: claim.from, to: aloneAfter(claim.from, me) },
        answer,
        me,
      );
    case "giving":
      if (answer.is === "won") return { at: "ended", why: "given", register: claim.to };
      return answered(
        claimFrom(claim.from, me),
        { do: "swap", from: claim.from, to: aloneAfter(claim.from, me) },
        answer,
        me,
      );
    default:
      return claim;
  }
}

/** What the register's first reading makes of a side that is about to run its VM. */
function first(
  claim: { readonly vm: string; readonly known: Register | undefined },
  register: Register | undefined,
  me: Side,
): PrimaryClaim {
  const { vm, known } = claim;
  const isOld = register !== undefined && known !== undefined &&
    register.generation < known.generation;
  const last = register === undefined || isOld ? known : register;
  if (last !== undefined && !isOurs(last, me)) {
    return { at: "ended", why: "not-ours", register: last };
  }
  const generation = (last?.generation ?? 0) + 1;
  const to: Alone = { state: "alone", vm, generation, side: me };
  return { at: "claiming", from: register, to, isStart: true };
}

/** Whether a register names this host as the one that runs the VM. */
function isOurs(register: Register, me: Side): boolean {
  const owner = register.state === "alone" ? register.side : register.primary;
  return owner.name === me.name;
}

/** What another register than the claimed one makes of a claim. */
function judge(
  claim: Extract<PrimaryClaim, { at: "claiming" }>,
  answer: Extract<Answer, { is: "current" | "foreign" }>,
  me: Side,
): PrimaryClaim {
  if (answer.is === "foreign") return { ...claim, doubt: answer.why };
  const { register } = answer;
  if (register === undefined) {
    return { ...claim, doubt: "the register is gone: somebody has deleted it" };
  }
  // Read while another request of ours was under way: it is asked again.
  if (isEqual(register, claim.from)) return claim;
  const last = claim.from?.generation ?? 0;
  if (register.generation <= last) {
    return { ...claim, doubt: `the register went back to generation ${register.generation}` };
  }
  if (claim.isStart) return isOurs(register, me) ? claimFrom(register, me, true) : beaten(register);
  if (register.state === "alone") {
    return isSameSide(register.side, me) ? { at: "alone", register } : beaten(register);
  }
  // Our own joining, of which we had never heard that it was done: the secondary has not, either.
  return isSameSide(register.primary, me) ? claimFrom(register, me) : beaten(register);
}

function beaten(register: Register): PrimaryClaim {
  return { at: "ended", why: "beaten", register };
}
