/**
 * What another process asks a running end over its control socket; the messages are in
 * lib/control/.
 */
import {
  decodeDone,
  decodeDurations,
  decodePlace,
  decodeStatus,
  MAX_ANSWER_BYTES,
} from "../../control/answer.ts";
import type { AttachPlace, AttachRequest } from "../../control/attach_request.ts";
import { LineDecoder } from "../../control/line_decoder.ts";
import type { ProtectRequest } from "../../control/protect_request.ts";
import { type ControlRequest, encodeRequest } from "../../control/request.ts";
import type { SenderDurations } from "../../control/sender_status.ts";
import type { EarlyEndStatus, EndStatus } from "../../control/end_status.ts";
import { TransportError, WireError } from "../../errors.ts";
import { parseControlPath } from "./control_path.ts";

/** How long a status may take: the end that serves it does nothing else that takes longer. */
const STATUS_TIMEOUT_MS = 5000;

/** Which end is asked, and what breaks off the request. */
interface Asking<T> {
  readonly decode: (line: string, from: string) => T;
  readonly signal: AbortSignal;
  /** Without a limit, the answer may take any time. */
  readonly timeoutMs?: number;
}

/**
 * Asks a running end how it is doing.
 *
 * @param socket See {@link parseControlPath}; so with the others below.
 * @throws {TransportError} if nobody answers there; {WireError} if the answer is not a kemari's;
 *   {RelayedError} with that end's reason if it refuses. So with the others below.
 */
export function askStatus(
  socket: string,
  signal: AbortSignal,
  timeoutMs = STATUS_TIMEOUT_MS,
): Promise<EndStatus | EarlyEndStatus> {
  return ask(socket, { command: "status" }, { decode: decodeStatus, signal, timeoutMs });
}

/** Asks a sender for its last durations. */
export function askDurations(socket: string, signal: AbortSignal): Promise<SenderDurations> {
  return ask(socket, { command: "durations" }, { decode: decodeDurations, signal });
}

/**
 * Has a receiver take the VM over; resolves when the takeover is done, however long fencing and
 * loading take.
 */
export async function askFailover(
  socket: string,
  { stale = false, signal }: { readonly stale?: boolean; readonly signal: AbortSignal },
): Promise<void> {
  await ask(socket, { command: "failover", stale }, { decode: decodeDone, signal });
}

/** Has a receiver that has taken over protect its VM; resolves when the protection ends. */
export async function askProtection(
  socket: string,
  request: ProtectRequest,
  signal: AbortSignal,
): Promise<void> {
  await ask(socket, request, { decode: decodeDone, signal });
}

/** Has a receiver take a session's key; it answers where a sender that has the key can connect. */
export function askAttach(
  socket: string,
  request: Extract<AttachRequest, { way: "direct" }>,
  signal: AbortSignal,
): Promise<AttachPlace> {
  const asking = { decode: decodePlace, signal, timeoutMs: STATUS_TIMEOUT_MS };
  return ask(socket, { command: "attach", ...request }, asking);
}

async function ask<T>(
  socket: string,
  request: ControlRequest,
  { decode, signal, timeoutMs }: Asking<T>,
): Promise<T> {
  const path = parseControlPath(socket);
  let connection: Deno.UnixConn;
  try {
    connection = await Deno.connect({ transport: "unix", path });
  } catch (cause) {
    throw unreachable(path, cause);
  }
  const abort = () => closeQuietly(connection);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  let late = false;
  const timer = timeoutMs === undefined ? undefined : setTimeout(() => {
    late = true;
    closeQuietly(connection);
  }, timeoutMs);
  let line: string | undefined;
  try {
    await connection.write(new TextEncoder().encode(encodeRequest(request)));
    line = await firstLine(connection, path);
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof WireError) throw error;
    if (!late) {
      throw new TransportError(path, "read", "the control socket failed", {
        party: "control",
        cause: error,
      });
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    closeQuietly(connection);
  }
  if (line !== undefined && !late) return decode(line, path);
  if (late) {
    throw new TransportError(path, "read", `no answer in ${timeoutMs} ms`, {
      party: "control",
      hint: "that end hangs, or the socket is not a kemari's --control socket",
    });
  }
  signal.throwIfAborted();
  throw new TransportError(path, "read", "the answer broke off: that end has just ended", {
    party: "control",
  });
}

/** The first line that the end writes; undefined if the connection ends before the line does. */
async function firstLine(connection: Deno.UnixConn, path: string): Promise<string | undefined> {
  const decoder = new LineDecoder(MAX_ANSWER_BYTES, path);
  for await (const chunk of connection.readable) {
    const [line] = decoder.receive(chunk);
    if (line !== undefined) return line;
  }
  return undefined;
}

/** Why a control socket cannot be asked, and what to do about it. */
function unreachable(path: string, cause: unknown): TransportError {
  if (cause instanceof Deno.errors.NotFound) {
    return new TransportError(path, "connect", "there is no such control socket", {
      party: "control",
      hint: `start kemari with --control ${path}, or name the one that it was started with`,
      cause,
    });
  }
  if (cause instanceof Deno.errors.PermissionDenied) {
    return new TransportError(path, "connect", "this user may not use the control socket", {
      party: "control",
      hint: "ask as the user that runs that kemari, or as root",
      cause,
    });
  }
  return new TransportError(path, "connect", "nobody listens on this control socket", {
    party: "control",
    hint: "the kemari that made it has ended without removing it: see whether it still runs, and " +
      "what it said last",
    cause,
  });
}

function closeQuietly(connection: Deno.UnixConn): void {
  try {
    connection.close();
  } catch {
    // The connection was closed already: read to its end, or ended by a timer or a signal.
  }
}
