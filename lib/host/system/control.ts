/**
 * The control socket: one JSON line in, one JSON line out.
 *
 * `{"command":"status"}` answers with the end's status, `{"command":"durations"}` with the last
 * thousands of each kind of duration (a sender only); `{"command":"failover"}`, with `"stale":true`
 * or without, and `{"command":"protect",…}` with `{"ok":true}` or `{"error":…,"hint":…,"exitCode":…}`, when they are
 * done: for `protect` that is when the protection ends.
 */
import { exitCodeOf, TransportError, WireError } from "../../errors.ts";
import { parseControlPath } from "./control_address.ts";
import { libc } from "./libc.ts";
import { OutputQueue, readSome } from "./channel.ts";
import type { Reactor, Watch } from "./reactor.ts";
import { type Listener, listenSocket } from "./socket.ts";

/** What a running end lets others ask of it. */
export interface ControlHandlers {
  status(): object;
  /** The last durations of each kind, see {@link SenderDurations}. */
  durations?(): object;
  /**
   * Resolves when it is done, rejects with the reason it cannot be.
   *
   * @param stale Whether the replica is wanted however old it is known to be.
   */
  failover?(stale: boolean): Promise<void>;
  /**
   * Protects the VM that this end has taken over, until that ends; see {@link Survivor}.
   *
   * @param request What came with the command.
   * @param gone Aborted when whoever asked is gone.
   */
  protect?(request: Record<string, unknown>, gone: AbortSignal): Promise<void>;
}

const MAX_REQUEST_BYTES = 16_384;
/** Several times the status of a VM with a hundred taps. */
const MAX_ANSWER_CHARS = 1 << 20;
/** How long a status may take: whoever serves it does nothing else that takes longer. */
const STATUS_TIMEOUT_MS = 5000;

/** Serves a control socket on the reactor. */
export class ControlServer {
  readonly #reactor: Reactor;
  readonly #listener: Listener;
  readonly #handlers: ControlHandlers;
  readonly #watch: Watch;
  readonly #clients = new Set<ControlClient>();

  /**
   * @param path See {@link parseControlPath}.
   * @throws {TransportError} if the path cannot be used.
   */
  static async open(
    path: string,
    handlers: ControlHandlers,
    reactor: Reactor,
    signal: AbortSignal,
  ): Promise<ControlServer> {
    const plain = parseControlPath(path);
    const address = { kind: "unix", path: plain, text: plain } as const;
    return new ControlServer(await listenSocket(address, reactor, signal), handlers, reactor);
  }

  private constructor(listener: Listener, handlers: ControlHandlers, reactor: Reactor) {
    this.#listener = listener;
    this.#handlers = handlers;
    this.#reactor = reactor;
    this.#watch = reactor.watch(listener.fd, {
      readable: () => {
        const fd = this.#listener.accept();
        if (fd === undefined) return;
        const client = new ControlClient(fd, this.#reactor, this.#handlers, () => {
          this.#clients.delete(client);
        });
        this.#clients.add(client);
      },
    });
    this.#watch.want(true, false);
  }

  close(): void {
    for (const client of this.#clients) client.close();
    this.#watch.stop();
    this.#listener.close();
  }
}

class ControlClient {
  readonly #fd: number;
  readonly #handlers: ControlHandlers;
  readonly #output: OutputQueue;
  readonly #watch: Watch;
  readonly #onClose: () => void;
  #request = "";
  #answered: Promise<void> = Promise.resolve();
  readonly #gone = new AbortController();
  #closed = false;

  constructor(fd: number, reactor: Reactor, handlers: ControlHandlers, onClose: () => void) {
    this.#fd = fd;
    this.#handlers = handlers;
    this.#onClose = onClose;
    this.#output = new OutputQueue(fd, "control socket", "control");
    this.#watch = reactor.watch(fd, {
      readable: () => this.#guard(() => this.#read()),
      writable: () => this.#guard(() => this.#flush()),
    });
    this.#watch.want(true, false);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watch.stop();
    libc().close(this.#fd);
    this.#gone.abort();
    this.#onClose();
  }

  /** A client's connection failing is the client's affair. */
  #guard(action: () => void): void {
    try {
      action();
    } catch {
      this.close();
    }
  }

  #read(): void {
    const buffer = new Uint8Array(MAX_REQUEST_BYTES);
    const count = readSome(this.#fd, buffer, "control socket", "control");
    if (count === undefined) return;
    if (count === 0) return this.close();
    this.#request += new TextDecoder().decode(buffer.subarray(0, count));
    const lines = this.#request.split("\n");
    this.#request = lines.pop()!;
    if (this.#request.length > MAX_REQUEST_BYTES) return this.close();
    for (const line of lines) {
      // In the order of the requests: a failover takes its time, a status behind it waits.
      this.#answered = this.#answered.then(() => this.#answer(line)).then((reply) =>
        this.#guard(() => {
          if (this.#closed) return;
          this.#output.push([new TextEncoder().encode(JSON.stringify(reply) + "\n")]);
          this.#flush();
        })
      );
    }
  }

  async #answer(line: string): Promise<object> {
    let request: Record<string, unknown> | null;
    try {
      request = JSON.parse(line);
    } catch {
      return { error: "the request is not JSON" };
    }
    const { status, durations, failover, protect } = this.#handlers;
    try {
      switch (request?.command) {
        case "status":
          return status();
        case "durations":
          return durations === undefined ? unknown(request.command) : durations();
        case "failover":
          if (failover === undefined) {
            return refuse("a sender: it cannot take over", "ask the secondary's kemari recv");
          }
          await failover(request.stale === true);
          return { ok: true };
        case "protect":
          if (protect === undefined) {
            return refuse("a sender: it protects a VM already", "run kemari protect without --via");
          }
          await protect(request, this.#gone.signal);
          return { ok: true };
        default:
          return unknown(request?.command);
      }
    } catch (error) {
      const { message, hint } = error as { message: string; hint?: string };
      return { error: message, hint, exitCode: exitCodeOf(error) };
    }
  }

  #flush(): void {
    this.#watch.want(true, !this.#output.flush());
  }
}

function unknown(command: unknown): object {
  return { error: `no such command: ${String(command)}` };
}

function refuse(what: string, hint: string): object {
  return { error: `this end is ${what}`, hint };
}

/**
 * Asks a running end. A failover takes as long as fencing and loading do; a status must come at
 * once.
 *
 * @param socket See {@link parseControlPath}.
 * @param more What goes with the command.
 * @returns Its answer.
 * @throws {TransportError} if nobody answers there; {WireError} if what does is no kemari.
 */
export async function askControl(
  socket: string,
  command: "status" | "durations" | "failover" | "protect",
  signal: AbortSignal,
  statusTimeoutMs: number = STATUS_TIMEOUT_MS,
  more: Readonly<Record<string, unknown>> = {},
): Promise<Record<string, unknown>> {
  const path = parseControlPath(socket);
  let connection: Deno.UnixConn;
  try {
    connection = await Deno.connect({ transport: "unix", path });
  } catch (cause) {
    throw unreachable(path, cause);
  }
  const abort = () => closeQuietly(connection);
  signal.addEventListener("abort", abort);
  let late = false;
  const timer = command !== "status" ? undefined : setTimeout(() => {
    late = true;
    closeQuietly(connection);
  }, statusTimeoutMs);
  try {
    await connection.write(new TextEncoder().encode(JSON.stringify({ command, ...more }) + "\n"));
    let text = "";
    for await (const chunk of connection.readable.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (text.includes("\n")) break;
      if (text.length <= MAX_ANSWER_CHARS) continue;
      throw new WireError("transaction", 0, "too-large", `${path}: the answer does not end`, {
        hint: "is this a kemari's --control socket?",
      });
    }
    if (late) throw new Error("closed by the timer");
    if (!text.includes("\n")) {
      throw new TransportError(path, "read", "the answer broke off: that end has just ended", {
        party: "control",
      });
    }
    return JSON.parse(text);
  } catch (error) {
    signal.throwIfAborted();
    if (late) {
      throw new TransportError(path, "read", `no answer in ${statusTimeoutMs} ms`, {
        party: "control",
        hint: "that end hangs, or the socket is not a kemari's --control socket",
      });
    }
    if (error instanceof SyntaxError) {
      throw new WireError("transaction", 0, "bad-value", `${path}: the answer is not JSON`);
    }
    if (error instanceof TransportError || error instanceof WireError) throw error;
    throw new TransportError(path, "read", "the control socket failed", {
      party: "control",
      cause: error,
    });
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
    closeQuietly(connection);
  }
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
    // Closed by reading it to its end, or by a timer or a signal.
  }
}
