import { TransportError } from "../errors.ts";
import type { PeerConnection } from "./link/peer_connection.ts";
import { within } from "./system/within.ts";

/** How long after its output a command may end. */
const EXIT_WAIT_MS = 500;

/**
 * For a connection that was a command: replaces the connection's error by how the command ended.
 */
export async function inWordsOfCommand(
  error: unknown,
  peer: PeerConnection | undefined,
): Promise<unknown> {
  if (peer?.command === undefined) return error;
  if (!(error instanceof TransportError) || error.party !== "peer") return error;
  const code = await within(EXIT_WAIT_MS, peer.command.exitCode);
  if (code === undefined) return error;
  const { message, hint } = peer.command.explain(code);
  return new TransportError(peer.transport.name, error.phase, message, {
    party: "peer",
    hint,
    cause: error,
  });
}
