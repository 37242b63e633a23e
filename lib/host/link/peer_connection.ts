/** The connection to the other end, whatever it is made of. */
import { TransportError } from "../../errors.ts";
import type { Address } from "../system/address.ts";
import { endTree } from "../system/process_tree.ts";
import { adopt } from "../system/channel.ts";
import { errno, errnoText, libc } from "../system/libc.ts";
import type { Reactor } from "../system/reactor.ts";
import { type AdmitIp, connectSocket } from "../system/socket.ts";
import { type Descriptors, PlainTransport, type Transport } from "../system/transport.ts";
import type { LinkGuard } from "../tls/link_guard.ts";
import { O_CLOEXEC, O_NONBLOCK } from "../system/linux.ts";

/** A connection to the other end. */
export interface PeerConnection {
  readonly transport: Transport;
  /** The command, if the other end is a command that we have started. */
  readonly command?: PeerCommand;
}

/** A command that we have started, and that is the other end. */
interface PeerCommand {
  /** The command's exit code. */
  readonly exitCode: Promise<number>;
  /** Ends the command, since it is not a kemari. */
  kill(): void;
}

/** A plain connection over one socket. */
export function socketConnection(fd: number, name: string): PeerConnection {
  return connectionOver(socketDescriptors(fd, name));
}

/** A socket's one descriptor, for both ways. */
export function socketDescriptors(fd: number, name: string): Descriptors {
  return { input: fd, output: fd, name, isSocket: true, close: () => void libc().close(fd) };
}

/** A plain connection over these descriptors, which are closed with it. */
export function connectionOver(descriptors: Descriptors): PeerConnection {
  return { transport: new PlainTransport(descriptors, "peer") };
}

/**
 * Opens the connection that an address stands for. A handshake, if there is one, comes with its
 * first use.
 *
 * @throws {TransportError | UsageError} also where the guard does not let us connect there.
 */
export async function connectPeer(
  address: Address,
  guard: LinkGuard,
  reactor: Reactor,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<PeerConnection> {
  switch (address.kind) {
    case "tcp":
    case "unix": {
      const admit: AdmitIp = (ip) => guard.admit(ip, address.text);
      const fd = await connectSocket(address, reactor, timeoutMs, signal, "peer", admit);
      return { transport: guard.transport(socketDescriptors(fd, address.text)) };
    }
    case "stdio": {
      const input = adopt(0, "read");
      const output = adopt(1, "write");
      return {
        transport: guard.transport({
          input: input.fd,
          output: output.fd,
          name: "stdio",
          isSocket: false,
          close() {
            input.release();
            output.release();
          },
        }),
      };
    }
    case "exec":
      return spawnPeer(address.command, address.text, guard);
  }
}

/**
 * Starts a shell command with its stdin and stdout connected to us by pipes.
 *
 * The runtime hands out no descriptors of its children's pipes. The child opens our pipes by their
 * names in /proc instead, and then writes a line to the stdout that it got from the runtime.
 *
 * The command is not killed: a `kemari recv` ends by itself with its connection, or has a VM by
 * then.
 */
async function spawnPeer(
  command: string,
  name: string,
  guard: LinkGuard,
): Promise<PeerConnection> {
  const down = pipe(name);
  const up = pipe(name);
  const proc = `/proc/${Deno.pid}/fd`;
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("/bin/sh", {
      args: [
        "-c",
        `exec 3>&1 <${proc}/${down.read} >${proc}/${up.write}; echo >&3; exec 3>&-; exec /bin/sh ` +
        `-c "$1"`,
        "sh",
        command,
      ],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const opened = await child.stdout.getReader().read();
    if (opened.done) throw new Error("the shell ended at once");
  } catch (cause) {
    for (const fd of [down.read, down.write, up.read, up.write]) libc().close(fd);
    throw new TransportError(name, "spawn", "cannot start the command", {
      party: "peer",
      cause,
    });
  }
  libc().close(down.read);
  libc().close(up.write);
  let ended = false;
  const exitCode = child.status.then(({ code }) => {
    ended = true;
    return code;
  });
  const descriptors: Descriptors = {
    input: up.read,
    output: down.write,
    name,
    isSocket: false,
    close() {
      libc().close(up.read);
      libc().close(down.write);
    },
  };
  const kill = () => {
    if (!ended) endTree(child.pid);
  };
  try {
    return { transport: guard.transport(descriptors), command: { exitCode, kill } };
  } catch (error) {
    kill();
    throw error;
  }
}

function pipe(name: string): { read: number; write: number } {
  const fds = new Int32Array(2);
  if (libc().pipe2(new Uint8Array(fds.buffer), O_NONBLOCK | O_CLOEXEC) < 0) {
    throw new TransportError(name, "spawn", `no pipe: ${errnoText(errno())}`, { party: "peer" });
  }
  return { read: fds[0], write: fds[1] };
}

/** How long connecting may take. */
export const CONNECT_TIMEOUT_MS = 10_000;
