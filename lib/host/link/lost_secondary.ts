/** The ways in which a secondary goes without a word, as errors. */
import { TransportError, WireError } from "../../errors.ts";
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
    hint: "see what `kemari recv` says there",
  });
}

/** Whether the secondary has said that it gave us up, since it heard nothing from us. */
export function hasGivenUsUp(error: unknown): boolean {
  return error instanceof WireError && error.fault === "silence";
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
