/**
 * Descriptors sent over a Unix socket: so a process gets a connection that it could not make
 * itself.
 *
 * @see unix(7), SCM_RIGHTS; cmsg(3) for the layout, here that of 64-bit Linux
 */
import { type Party, TransportError } from "../../errors.ts";
import { errno, errnoText, libc } from "./libc.ts";
import {
  AF_UNIX,
  ERRNO,
  F_SETFL,
  MSG_CMSG_CLOEXEC,
  MSG_CTRUNC,
  MSG_NOSIGNAL,
  O_NONBLOCK,
  SCM_RIGHTS,
  SOCK_CLOEXEC,
  SOCK_STREAM,
  SOL_SOCKET,
} from "./linux.ts";

/** `struct cmsghdr`: `size_t` length, `int` level, `int` type; then an `int` for each descriptor. */
const CONTROL_HEADER_BYTES = 16;
/** What is passed at once, at the most: more are not taken. */
const MOST_DESCRIPTORS = 4;
const DESCRIPTOR_BYTES = 4;
/** `struct msghdr`, and `struct iovec`. */
const MESSAGE_BYTES = 56;
const IOVEC_BYTES = 16;

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
 * Sends bytes over a Unix socket, and descriptors with the first of them.
 *
 * @param fds One to four; they stay the caller's.
 * @param party Who is at the other end.
 * @returns How many bytes were sent: 0 if the socket takes none now.
 * @throws {TransportError} with the socket's name.
 */
export function sendWithDescriptors(
  socket: number,
  bytes: Uint8Array,
  fds: readonly number[],
  name: string,
  party: Party,
): number {
  const message = new Message(bytes, fds.length);
  const { control } = message;
  control.setBigUint64(0, BigInt(CONTROL_HEADER_BYTES + DESCRIPTOR_BYTES * fds.length), true);
  control.setInt32(8, SOL_SOCKET, true);
  control.setInt32(12, SCM_RIGHTS, true);
  for (const [i, fd] of fds.entries()) {
    control.setInt32(CONTROL_HEADER_BYTES + DESCRIPTOR_BYTES * i, fd, true);
  }
  const sent = Number(libc().sendmsg(socket, message.memory, MSG_NOSIGNAL));
  if (sent >= 0) return sent;
  const code = errno();
  if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return 0;
  throw new TransportError(name, "write", errnoText(code), { party, cause: code });
}

/** What has come over a Unix socket. */
interface ReceivedBytes {
  /** As {@link readSome} has it. */
  readonly count: number | undefined;
  /** The caller's to close. */
  readonly fds: readonly number[];
}

/**
 * Reads what is there into `buffer`, and takes the descriptors that have come with it.
 *
 * @throws {TransportError} with the socket's name; no descriptor is left open then.
 */
export function receiveWithDescriptors(
  socket: number,
  buffer: Uint8Array<ArrayBuffer>,
  name: string,
  party: Party,
): ReceivedBytes {
  const message = new Message(buffer, MOST_DESCRIPTORS);
  const count = Number(libc().recvmsg(socket, message.memory, MSG_CMSG_CLOEXEC));
  if (count < 0) {
    const code = errno();
    if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return { count: undefined, fds: [] };
    throw new TransportError(name, "read", errnoText(code), { party, cause: code });
  }
  const fds = descriptorsIn(message);
  if (!message.isCut) return { count, fds };
  for (const fd of fds) libc().close(fd);
  throw new TransportError(name, "read", `more than ${MOST_DESCRIPTORS} descriptors at once`, {
    party,
  });
}

function descriptorsIn({ control, controlBytes }: Message): number[] {
  if (controlBytes < CONTROL_HEADER_BYTES) return [];
  const isRights = control.getInt32(8, true) === SOL_SOCKET &&
    control.getInt32(12, true) === SCM_RIGHTS;
  if (!isRights) return [];
  const end = Math.min(Number(control.getBigUint64(0, true)), controlBytes);
  const fds: number[] = [];
  for (let at = CONTROL_HEADER_BYTES; at + DESCRIPTOR_BYTES <= end; at += DESCRIPTOR_BYTES) {
    fds.push(control.getInt32(at, true));
  }
  return fds;
}

/**
 * A `struct msghdr`, with the `struct iovec` and the room for descriptors that it points to behind it:
 * in one piece of memory, which lives as long as the call that it is given to.
 */
class Message {
  readonly memory: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  readonly control: DataView;

  /** @param bytes To be sent, or to be filled; they have to outlive the call. */
  constructor(bytes: Uint8Array, descriptors: number) {
    const room = Math.ceil((CONTROL_HEADER_BYTES + DESCRIPTOR_BYTES * descriptors) / 8) * 8;
    this.memory = new Uint8Array(MESSAGE_BYTES + IOVEC_BYTES + room);
    const view = this.#view = new DataView(this.memory.buffer);
    this.control = new DataView(this.memory.buffer, MESSAGE_BYTES + IOVEC_BYTES);
    const address = addressOf(this.memory);
    view.setBigUint64(MESSAGE_BYTES, addressOf(bytes), true);
    view.setBigUint64(MESSAGE_BYTES + 8, BigInt(bytes.length), true);
    view.setBigUint64(16, address + BigInt(MESSAGE_BYTES), true);
    view.setBigUint64(24, 1n, true);
    view.setBigUint64(32, address + BigInt(MESSAGE_BYTES + IOVEC_BYTES), true);
    view.setBigUint64(40, BigInt(room), true);
  }

  /** What of {@link control} was written. */
  get controlBytes(): number {
    return Number(this.#view.getBigUint64(40, true));
  }

  /** Whether there was no room for all of it. */
  get isCut(): boolean {
    return (this.#view.getInt32(48, true) & MSG_CTRUNC) !== 0;
  }
}

function addressOf(memory: Uint8Array): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory as BufferSource)));
}
