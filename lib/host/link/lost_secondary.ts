/** The ways in which a secondary goes without a word, as errors. */
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

/** Whether it is the secondary that has failed, or the connection to it, and nobody else. */
export function isPeers(error: unknown): boolean {
  return error instanceof KemariError && error.party === "peer";
}

/** Whether the secondary has said that it gave us up, since it heard nothing from us. */
export function hasGivenUsUp(error: unknown): boolean {
  return error instanceof WireError && error.fault === "silence";
}

/** What a session has ended with whose secondary has given us up, where the VM was stopped for it. */
export function givenUp(cause: unknown): WireError {
  return new WireError("transaction", 0, "silence", "the secondary has given this primary up", {
    hint: "the VM is stopped here, since the secondary may run it: see kemari status at the " +
      "secondary, and let the VM go on (cont) only if it does not run there",
    cause,
  });
}

/**
 * What a session has ended with whose HANDOVER was not answered: nobody here knows whose VM it is.
 *
 * @param cause What has ended it.
 */
export function handoverInDoubt(name: string, cause: unknown): TransportError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new TransportError(
    name,
    "read",
    `the handover broke off before it was acknowledged, so the secondary may run the VM (${reason})`,
    {
      party: "peer",
      hint:
        "start the VM nowhere before you have looked at the secondary. It runs there, or is about " +
        "to, if kemari status says active or activating there, or if its recv has ended with 0 or a " +
        "QEMU runs there that recv gave the VM to. If none of this is so, end that recv first, and " +
        "only then let the VM go on here (cont)",
      cause,
    },
  );
}

/** Why a secondary is given up that is there, and takes less than the guest writes. */
export function tooSlow(peer: string, disk: string, heldBytes: number): TransportError {
  const held = formatBytes(heldBytes);
  return new TransportError(
    peer,
    "write",
    `the secondary takes less than the guest writes: ${held} of disk ${disk} wait for it`,
    { party: "peer", hint: "the link, or its disk, is too slow for this guest" },
  );
}
