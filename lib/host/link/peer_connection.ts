/** The connection to the other end, whatever it is made of. */
import type { Address } from "../system/address.ts";
import { adopt } from "../system/channel.ts";
import { libc } from "../system/libc.ts";
import { connectBySsh } from "../ssh/connect_by_ssh.ts";
import { startPiped } from "../system/piped_command.ts";
import type { Reactor } from "../system/reactor.ts";
import { type AdmitIp, connectSocket } from "../system/socket.ts";
import { type Descriptors, PlainTransport, type Transport } from "../system/transport.ts";
import type { LinkGuard } from "../tls/link_guard.ts";

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
  /** Why the connection has ended, if the command has ended with this. */
  explain(code: number): { readonly message: string; readonly hint: string };
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
    case "ssh":
      return await connectBySsh(address, reactor, signal, { timeoutMs });
    case "exec":
      return spawnPeer(address.command, address.text, guard);
  }
}

/**
 * The command is not killed: a `kemari recv` ends by itself with its connection, or has a VM by then.
 * What a terminal sends to all its processes is for us to hear: we still have last words to say.
 */
async function spawnPeer(
  command: string,
  name: string,
  guard: LinkGuard,
): Promise<PeerConnection> {
  const { descriptors, exitCode, end } = await startPiped(command, name, {
    stderr: "inherit",
    ignored: ["INT", "QUIT", "HUP"],
  });
  const kill = () => end("SIGTERM");
  const explain = (code: number) => ({
    message: `the command ended with exit code ${code}`,
    hint: "see its output; in the end it has to run `kemari recv stdio: --exec …`",
  });
  try {
    return { transport: guard.transport(descriptors), command: { exitCode, kill, explain } };
  } catch (error) {
    kill();
    throw error;
  }
}

/** How long connecting may take. */
export const CONNECT_TIMEOUT_MS = 10_000;
