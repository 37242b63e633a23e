/** Messages on the end of a session at the secondary, if nothing is activated. */
import type { FailoverAnswer } from "../../decisions/failover.ts";
import type { SecondaryStep, WaitReason } from "../../decisions/secondary_end.ts";
import { type KemariError, TransportError, WireError } from "../../errors.ts";
import type { Leave } from "../../txn/leave.ts";

/** Why a replica may be behind what clients have seen. */
export const OUTRUN =
  "the primary's VM may have gone on since, and have sent output that it does not know";

/** Whether a sender was refused because it has another VM: the replica has not changed. */
export function isStranger(error: KemariError): boolean {
  return error instanceof WireError &&
    (error.fault === "other-vm" || error.fault === "same-image");
}

/** The error for a session whose sender has sent LEAVE. @param name The sender's address. */
export function senderLeft(name: string, { reason, text }: Leave): TransportError {
  const because = text === "" ? "" : ` (${text})`;
  return reason === "goes-on"
    ? new TransportError(name, "read", `the sender has ended the protection${because}`, {
      party: "peer",
      hint: "the VM stays at the primary",
    })
    : new TransportError(name, "read", `the VM was shut down at the primary${because}`, {
      party: "peer",
      hint: "nothing is started here",
    });
}

/** How a message on a session's end begins. */
const WHAT: Readonly<Record<WaitReason, string>> = {
  "goes-on": "left",
  "vm-ended": "left",
  refused: "the sender was refused",
  storage: "the sender was refused",
  "nothing-committed": "sender lost",
  outrun: "primary lost",
  incomplete: "primary lost",
  lost: "sender lost",
};

/** Why the VM is not activated here. */
export function whyNot(why: WaitReason, unfit: string | undefined): string {
  switch (why) {
    case "refused":
    case "storage":
      return "its VM goes on at the primary, unprotected";
    case "incomplete":
      return unfit!;
    default:
      return OUTRUN;
  }
}

/** What becomes of the replica, and what the operator may do with it. */
function keeping(why: WaitReason, committed: number, controlled: boolean): string {
  const kept = `keeping transaction ${committed}`;
  switch (why) {
    case "goes-on":
      return `the VM stays at the primary, and is not activated here; ${kept} until a sender ` +
        `comes back`;
    case "vm-ended":
      return `nothing is started here; ${kept} until a sender comes back`;
    case "lost":
      if (!controlled) return `${kept}: a sender may come back`;
      return `${kept}: a sender may come back; or, once the primary is known to be dead, run ` +
        "kemari failover";
    default:
      return kept;
  }
}

/**
 * The line for the log.
 *
 * @param reason Why the session ended.
 * @param unfit The disks of the replica that are not whole, if any.
 * @param controlled Whether `kemari failover` can reach this end.
 */
export function waitingWords(
  { why, isLoud }: Extract<SecondaryStep, { do: "wait" | "end" }>,
  reason: string,
  committed: number,
  unfit: string | undefined,
  controlled: boolean,
): string {
  const not = isLoud ? `not activated: ${whyNot(why, unfit)}; nobody is fenced; ` : "";
  const tail = committed > 0 ? keeping(why, committed, controlled) : "waiting for another sender";
  return `${WHAT[why]}: ${reason}; ${not}${tail}`;
}

const STALE = "only if the primary is known to be dead, and the VM is wanted as it was at that " +
  "transaction: kemari failover --stale";

/** Why `kemari failover` is refused. @param name The connected sender, if there is one. */
export function notFailedOver(
  why: Extract<FailoverAnswer, { do: "refuse" }>["why"],
  name: string,
  committed: number,
): TransportError {
  const because = (what: string, hint: string) =>
    new TransportError(name, "read", what, { party: "user", hint });
  const keeps = `transaction ${committed} is not the VM's last state: `;
  switch (why) {
    case "nothing-committed":
      return because(
        "nothing to activate: no transaction is committed",
        "is the sender connected? see kemari status",
      );
    case "sender-is-there":
      return because(
        `a sender is connected, and the replica is of an earlier session: ${OUTRUN}`,
        "wait for its first transaction, see kemari status; or end the sender first",
      );
    case "vm-ended":
      return because(`${keeps}the VM was shut down at the primary`, STALE);
    case "goes-on":
      return because(`${keeps}the primary has said that the VM goes on there`, STALE);
    case "refused":
    case "storage":
      return because(`${keeps}the VM has gone on at the primary since, unprotected`, STALE);
    default:
      return because(`${keeps}${OUTRUN}`, STALE);
  }
}
