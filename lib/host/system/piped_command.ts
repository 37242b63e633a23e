/** Commands whose stdin and stdout are connected to us by pipes that the reactor can watch. */
import { TransportError } from "../../errors.ts";
import { errno, errnoText, libc } from "./libc.ts";
import { O_CLOEXEC, O_NONBLOCK } from "./linux.ts";
import { endTree } from "./process_tree.ts";
import type { Descriptors } from "./transport.ts";

/** A command that runs, or has run. */
export interface PipedCommand {
  /** Its stdout to read from, its stdin to write to; the caller closes them. */
  readonly descriptors: Descriptors;
  readonly exitCode: Promise<number>;
  /** What it says on stderr, if that was asked for. */
  readonly stderr: ReadableStream<Uint8Array> | undefined;
  /** Signals the command, and what it has started, unless it has ended. */
  end(signal: Deno.Signal): void;
}

export interface PipedOptions {
  /** What becomes of the command's stderr: `inherit` gives it ours. */
  readonly stderr: "inherit" | "piped";
  /** Signals that the command ignores. Whatever it starts ignores them too. */
  readonly ignored?: readonly string[];
}

/**
 * Starts a shell command.
 *
 * The runtime hands out no descriptors of its children's pipes. The child opens our pipes by their
 * names in /proc instead, and then writes a line to the stdout that it got from the runtime.
 *
 * @param name The endpoint, for errors.
 * @throws {TransportError} The command cannot be started.
 */
export async function startPiped(
  command: string,
  name: string,
  { stderr, ignored = [] }: PipedOptions,
): Promise<PipedCommand> {
  const down = pipe(name);
  const up = pipe(name);
  const proc = `/proc/${Deno.pid}/fd`;
  const trap = ignored.length === 0 ? "" : `trap '' ${ignored.join(" ")}; `;
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("/bin/sh", {
      args: [
        "-c",
        `${trap}exec 3>&1 <${proc}/${down.read} >${proc}/${up.write}; echo >&3; exec 3>&-; ` +
        `exec /bin/sh -c "$1"`,
        "sh",
        command,
      ],
      stdin: "null",
      stdout: "piped",
      stderr,
    }).spawn();
    const opened = await child.stdout.getReader().read();
    if (opened.done) throw new Error("the shell ended at once");
  } catch (cause) {
    for (const fd of [down.read, down.write, up.read, up.write]) libc().close(fd);
    throw new TransportError(name, "spawn", "cannot start the command", { party: "peer", cause });
  }
  libc().close(down.read);
  libc().close(up.write);
  let ended = false;
  const exitCode = child.status.then(({ code }) => {
    ended = true;
    return code;
  });
  return {
    descriptors: {
      input: up.read,
      output: down.write,
      name,
      isSocket: false,
      close() {
        libc().close(up.read);
        libc().close(down.write);
      },
    },
    exitCode,
    stderr: stderr === "piped" ? child.stderr : undefined,
    end: (signal) => {
      if (!ended) endTree(child.pid, signal);
    },
  };
}

function pipe(name: string): { read: number; write: number } {
  const fds = new Int32Array(2);
  if (libc().pipe2(new Uint8Array(fds.buffer), O_NONBLOCK | O_CLOEXEC) < 0) {
    throw new TransportError(name, "spawn", `no pipe: ${errnoText(errno())}`, { party: "peer" });
  }
  return { read: fds[0], write: fds[1] };
}
