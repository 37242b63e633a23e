/**
 * The side that runs the VM, and which output it may release: a state machine without I/O or clock.
 *
 * ```text
 *              answered fill whole won starting ──────────► claiming alone ───────► filling
 *   ───────► joining ──────► protected │ │ ▲ ▲ ▲ │ lost │ lost lost │ │ give beaten│ └─┼──won──┘
 *   └───────────┘ ▼ │ ▼ ▼ └────────────────────────────────────────┴─────────────────┤ giving ended
 *   ◄──────────────────────────────────────────────won─────────┼───┘ (claiming)
 *   ◄───────────────────────────────────────────────┘ takeBack
 * ```
 *
 * How to drive it: after each step the host sends the request of {@link askOf}, unless it was sent
 * already, and passes the answer to {@link answered}, together with its request; an answer to an
 * outdated request changes nothing. After the answer `unknown` the host repeats the request after a
 * while. {@link speaks} says which output may leave, {@link runs} whether the VM may run.
 *
 * **Why no two sides speak.** Only in `alone` does the VM's output leave without an
 * acknowledgement, and that state is entered only when the register was seen to name this very
 * process. From then on nobody else can change the register: a secondary changes it only from
 * `protected`, the comparison includes the generation, and this side writes `protected` only once
 * it holds its output (`filling` comes first). When it gives up on a secondary whose joining was
 * never answered, it raises the generation: the request that is still under way can then no longer
 * succeed.
 *
 * **Why nothing acknowledged is lost.** In every other state only output leaves that the secondary
 * has acknowledged. A secondary that claims the VM stops acknowledging before its request; so its
 * replica contains all output that has left.
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
  /** The register is read for the first time. `known` is the value that this host saw last. */
  | { readonly at: "starting"; readonly vm: string; readonly known: Register | undefined }
  /**
   * `isStart`: this process has never had the VM, so that its side's earlier process may have had
   * it.
   */
  | {
    readonly at: "claiming";
    readonly from: Register | undefined;
    readonly to: Alone;
    readonly isStart: boolean;
    /** Why the register gives nobody a right at the moment: an operator has to intervene. */
    readonly doubt?: string;
  }
  | { readonly at: "alone"; readonly register: Alone }
  /**
   * A secondary gets its first whole replica; from that checkpoint on, output waits for the
   * secondary.
   */
  | { readonly at: "filling"; readonly register: Alone }
  | { readonly at: "joining"; readonly from: Alone; readonly to: Protected }
  | { readonly at: "protected"; readonly register: Protected }
  /** The VM is stopped, and the secondary has its whole state. */
  | { readonly at: "giving"; readonly from: Protected; readonly to: Alone }
  | {
    readonly at: "ended";
    readonly why: "beaten" | "given" | "not-ours";
    readonly register: Register;
  };

/** A primary's first state. */
export function startPrimary(vm: string, known?: Register): PrimaryClaim {
  return { at: "starting", vm, known };
}

/** Which output may leave: all, only output that the secondary has acknowledged, or none. */
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

/** Whether the VM may run on this side. */
export function runs(claim: PrimaryClaim): boolean {
  return claim.at !== "giving" && claim.at !== "ended";
}

/** The request that is due to the arbiter; undefined for none. */
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

/** The events of this side. */
export type PrimaryNews =
  /** The checkpoint of a secondary's first whole replica has begun: from now on output is held. */
  | { readonly is: "fill" }
  /** The secondary has acknowledged that checkpoint. */
  | { readonly is: "whole"; readonly secondary: Side }
  /** The session with the secondary has ended, or is given up. */
  | { readonly is: "lost" }
  /** The VM is stopped for a handover, and the secondary has acknowledged its last transaction. */
  | { readonly is: "give" }
  /** The handover is given up: the VM is to go on here. */
  | { readonly is: "take-back" };

/** Takes an event; events that do not apply in a state change nothing. */
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
 * @param ask The answered request.
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
      // Whatever value is there instead, protection has failed, and the generation must be raised.
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

/** The state of a side that is about to run its VM, after the first reading of the register. */
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

/** Whether a register names this host as the host that runs the VM. */
function isOurs(register: Register, me: Side): boolean {
  const owner = register.state === "alone" ? register.side : register.primary;
  return owner.name === me.name;
}

/** The state of a claim after the register was found with another value than the claimed one. */
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
  // Read while another request of ours was under way: the request is repeated.
  if (isEqual(register, claim.from)) return claim;
  const last = claim.from?.generation ?? 0;
  if (register.generation <= last) {
    return { ...claim, doubt: `the register went back to generation ${register.generation}` };
  }
  if (claim.isStart) return isOurs(register, me) ? claimFrom(register, me, true) : beaten(register);
  if (register.state === "alone") {
    return isSameSide(register.side, me) ? { at: "alone", register } : beaten(register);
  }
  // Our own joining has succeeded, but its answer never came: the secondary does not know of it
  // either.
  return isSameSide(register.primary, me) ? claimFrom(register, me) : beaten(register);
}

function beaten(register: Register): PrimaryClaim {
  return { at: "ended", why: "beaten", register };
}
