import { TransportError } from "../errors.ts";
import type { PeerConnection } from "./link/peer_connection.ts";

/** How long the end of a command may come after the end of its output. */
const EXIT_WAIT_MS = 500;

/** A connection that a command was says less than how the command ended. */
export async function inWordsOfCommand(
  error: unknown,
  peer: PeerConnection | undefined,
): Promise<unknown> {
  if (peer?.command === undefined) return error;
  if (!(error instanceof TransportError) || error.party !== "peer") return error;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), EXIT_WAIT_MS);
  });
  const code = await Promise.race([peer.command.exitCode, timeout]);
  clearTimeout(timer);
  if (code === undefined) return error;
  return new TransportError(
    peer.transport.name,
    error.phase,
    `the command ended with exit code ${code}`,
    {
      party: "peer",
      hint: "see what it says; it has to run `kemari recv stdio: --exec …` in the end",
      cause: error,
    },
  );
}
