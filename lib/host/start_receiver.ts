/** A `kemari recv` that a sender has started by ssh, and that outlives that ssh. */
import { TransportError } from "../errors.ts";
import { shellQuote } from "./ssh/ssh_command.ts";
import { askStatus } from "./system/ask_control.ts";
import { libc } from "./system/libc.ts";
import { ERRNO } from "./system/linux.ts";
import type { Reactor } from "./system/reactor.ts";
import { selfCommand } from "./system/self_command.ts";
import { connectSocket } from "./system/socket.ts";

/** How long a recv may take until it listens, in milliseconds: an earlier replica is looked at first. */
const START_MS = 20_000;
const POLL_MS = 100;
const CONNECT_MS = 1000;
/** The end of its log, as much as tells why it has ended. */
const LAST_LINES = 3;

/** Where a recv that was started for a control socket logs. */
export function logOf(path: string): string {
  return `${path}.log`;
}

/**
 * Starts a `kemari recv` unless one has this control socket, and waits until senders may come.
 *
 * It leads a session of its own, so that nothing of ssh ends it: it may be a VM's by then. Its stderr
 * goes to {@link logOf}. Its stdout is closed, which it refuses if a takeover would go there.
 *
 * @param args What stands behind `kemari recv`, as a shell takes it.
 * @throws {TransportError} None could be started, with the end of what it said.
 */
export async function startReceiver(
  path: string,
  args: string,
  reactor: Reactor,
  signal: AbortSignal,
): Promise<void> {
  if (await isAnswered(path, reactor, signal)) return;
  const log = logOf(path);
  const logged = sizeOf(log);
  const command = selfCommand(["recv"], []).map(shellQuote).join(" ");
  const child = new Deno.Command("/bin/sh", {
    args: [
      "-c",
      `umask 077; cd /; exec 2>>"$1" >&- </dev/null; exec ${command} ${args} --control "$2"`,
      "sh",
      log,
      path,
    ],
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    detached: true,
  }).spawn();
  child.unref();
  let code: number | undefined;
  child.status.then((status) => code = status.code);
  const words = new Response(child.stderr).text();
  for (const begunAt = performance.now();;) {
    await reactor.sleep(POLL_MS, signal);
    if (code !== undefined) {
      const [said, shell] = [linesSince(log, logged), await words];
      // Somebody else has started one at the same time.
      if (await isAnswered(path, reactor, signal)) return;
      throw failed(path, `it ended with ${code}: ${said || shell.trim()}`, log);
    }
    if (await reactor.during(isOpen(path, signal), signal)) return;
    if (performance.now() - begunAt > START_MS) {
      throw failed(path, `it does not listen after ${START_MS / 1000} s`, log);
    }
  }
}

function failed(path: string, what: string, log: string): TransportError {
  return new TransportError(path, "spawn", `no kemari recv could be started: ${what}`, {
    party: "user",
    hint: `look at --recv, and at ${log} on that host`,
  });
}

/** @throws {TransportError} It cannot be told: the socket is another user's, say. */
async function isAnswered(path: string, reactor: Reactor, signal: AbortSignal): Promise<boolean> {
  const address = { kind: "unix", path, text: path } as const;
  try {
    libc().close(await connectSocket(address, reactor, CONNECT_MS, signal, "control"));
    return true;
  } catch (error) {
    const code = error instanceof TransportError ? error.cause : undefined;
    if (code === ERRNO.ENOENT || code === ERRNO.ECONNREFUSED) return false;
    throw error;
  }
}

async function isOpen(path: string, signal: AbortSignal): Promise<boolean> {
  try {
    return (await askStatus(path, signal, CONNECT_MS)).state !== "starting";
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

function linesSince(path: string, offset: number): string {
  try {
    const text = new TextDecoder().decode(Deno.readFileSync(path).subarray(offset));
    return text.trim().split("\n").slice(-LAST_LINES).join("; ");
  } catch {
    return "";
  }
}
