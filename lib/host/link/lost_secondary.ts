/** Errors for a secondary that is lost, or that has given this primary up. */
import { KemariError, TransportError, WireError } from "../../errors.ts";
import { formatBytes } from "../../units.ts";

/** @param name Its address. */
export function silentSecondary(name: string, silentMs: number): TransportError {
  const what = `nothing was heard from the secondary for ${Math.round(silentMs)} ms`;
  return new TransportError(name, "heartbeat", what, {
    party: "peer",
    hint: "its host or the link is down; --grace sets how long to wait",
  });
}

/** @param name Its address. */
export function closedBySecondary(name: string): TransportError {
  return new TransportError(name, "read", "the secondary closed the connection", {
    party: "peer",
    hint: "see what `kemari recv` says there; both ends need the same --key, --tls-dir or --plain",
  });
}

/**
 * The error for a secondary whose process ends: as lost as one whose connection has broken, though it
 * says so.
 *
 * @param cause Its refusal.
 */
export function stoppingSecondary(name: string, cause: unknown): TransportError {
  return new TransportError(name, "read", "the secondary has ended, or is about to", {
    party: "peer",
    hint: "see what `kemari recv` says there, and start it again",
    cause,
  });
}

/** Whether it is the secondary that has failed, or the connection to it, and nobody else. */
export function isPeers(error: unknown): boolean {
  return error instanceof KemariError && error.party === "peer";
}

/** Whether the secondary has said that it gave us up because it heard nothing from us. */
export function hasGivenUsUp(error: unknown): boolean {
  return error instanceof WireError && error.fault === "silence";
}

/**
 * The error for a session whose secondary has given us up, if the VM was stopped because of that.
 */
export function givenUp(cause: unknown): WireError {
  return new WireError("transaction", 0, "silence", "the secondary has given this primary up", {
    hint: "the VM is stopped here, since the secondary may run it: see kemari status at the " +
      "secondary, and let the VM go on (cont) only if it does not run there",
    cause,
  });
}

/**
 * The error for a session whose HANDOVER was not answered: this end cannot know which host runs the
 * VM.
 *
 * @param cause The error that ended the session.
 */
export function handoverInDoubt(name: string, cause: unknown): TransportError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new TransportError(
    name,
    "read",
    `the handover broke off before it was acknowledged, so the secondary may run the VM ` +
      `(${reason})`,
    {
      party: "peer",
      hint:
        "do not start the VM anywhere before you have looked at the secondary. It runs there, or " +
        "is about to, if kemari status says active or activating there, or if its recv has ended " +
        "with 0 or a QEMU runs there to which recv gave the VM. If nothing of this holds, end " +
        "that recv first, and only then let the VM go on here (cont)",
      cause,
    },
  );
}

/** The error for a secondary that is given up because it takes the guest's writes too slowly. */
export function tooSlow(peer: string, disk: string, heldBytes: number): TransportError {
  const held = formatBytes(heldBytes);
  return new TransportError(
    peer,
    "write",
    `the secondary takes less than the guest writes: ${held} of disk ${disk} wait for it`,
    { party: "peer", hint: "the link, or its disk, is too slow for this guest" },
  );
}
