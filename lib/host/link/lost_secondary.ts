/** The ways in which a secondary goes without a word, as errors. */
import { TransportError } from "../../errors.ts";

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
