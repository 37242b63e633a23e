/**
 * Descriptors sent over a Unix socket: so a process gets a connection that it could not make
 * itself.
 *
 * @see unix(7), SCM_RIGHTS; cmsg(3) for the layout, here that of 64-bit Linux
 */
import { TransportError } from "../../errors.ts";
import { errno, errnoText, libc } from "./libc.ts";
import {
  AF_UNIX,
  ERRNO,
  F_SETFL,
  MSG_NOSIGNAL,
  O_NONBLOCK,
  SCM_RIGHTS,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  SOL_SOCKET,
} from "./linux.ts";

/** `struct cmsghdr`: `size_t` length, `int` level, `int` type; then one `int`, padded to 8 bytes. */
const CONTROL_HEADER_BYTES = 16;
const CONTROL_BYTES = 24;
/** `struct msghdr`. */
const MESSAGE_BYTES = 56;

/** Both ends of a connection. The caller closes both. */
interface SocketPair {
  /** Non-blocking. */
  readonly ours: number;
  /** Blocking, as the process that gets this end expects. */
  readonly theirs: number;
}

/** @throws {TransportError} if there are no descriptors left. */
export function openSocketPair(name: string): SocketPair {
  const fds = new Int32Array(2);
  if (libc().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, new Uint8Array(fds.buffer)) < 0) {
    throw new TransportError(name, "connect", `no pair of sockets: ${errnoText(errno())}`);
  }
  libc().fcntl(fds[0], F_SETFL, BigInt(O_NONBLOCK));
  return { ours: fds[0], theirs: fds[1] };
}

/**
 * Sends bytes over a Unix socket, and a descriptor with the first of them.
 *
 * @returns How many bytes were sent: 0 if the socket takes none now.
 * @throws {TransportError} with the socket's name.
 */
export function sendWithDescriptor(
  socket: number,
  bytes: Uint8Array,
  fd: number,
  name: string,
): number {
  const iov = new BigUint64Array([addressOf(bytes), BigInt(bytes.length)]);
  const control = new Uint8Array(CONTROL_BYTES);
  const header = new DataView(control.buffer);
  header.setBigUint64(0, BigInt(CONTROL_HEADER_BYTES + 4), true);
  header.setInt32(8, SOL_SOCKET, true);
  header.setInt32(12, SCM_RIGHTS, true);
  header.setInt32(CONTROL_HEADER_BYTES, fd, true);
  const message = new Uint8Array(MESSAGE_BYTES);
  const view = new DataView(message.buffer);
  view.setBigUint64(16, addressOf(iov), true);
  view.setBigUint64(24, 1n, true);
  view.setBigUint64(32, addressOf(control), true);
  view.setBigUint64(40, BigInt(CONTROL_BYTES), true);
  const sent = Number(libc().sendmsg(socket, message, MSG_NOSIGNAL));
  if (sent >= 0) return sent;
  const code = errno();
  if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return 0;
  throw new TransportError(name, "write", errnoText(code), { party: "qemu", cause: code });
}

function addressOf(memory: Uint8Array | BigUint64Array): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory as BufferSource)));
}
