/** Descriptors as byte channels: how each kind is read and written without ever blocking. */
import { type Party, TransportError } from "../../errors.ts";
import { cString, errno, errnoText, libc } from "./libc.ts";
import {
  ERRNO,
  F_GETFL,
  F_SETFL,
  F_SETPIPE_SZ,
  O_ACCMODE,
  O_APPEND,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
  POLLERR,
  POLLHUP,
  S_IFIFO,
  S_IFMT,
  S_IFREG,
  S_IFSOCK,
  SHUT_WR,
} from "./linux.ts";

const PIPE_BYTES = 1 << 20;

/** What a descriptor is. */
type DescriptorKind = "pipe" | "socket" | "file" | "other";

export function kindOf(fd: number): DescriptorKind {
  const stat = new Uint8Array(256);
  if (libc().fstat(fd, stat) < 0) return "other";
  // st_mode lies at byte 24 of struct stat on x86-64, at byte 16 on aarch64.
  const mode = new DataView(stat.buffer).getUint32(Deno.build.arch === "x86_64" ? 24 : 16, true);
  switch (mode & S_IFMT) {
    case S_IFIFO:
      return "pipe";
    case S_IFSOCK:
      return "socket";
    case S_IFREG:
      return "file";
    default:
      return "other";
  }
}

/**
 * Whether a standard stream was closed when we were started. The runtime opens /dev/null in its
 * place, for reading and writing; a shell's `> /dev/null` is for writing only.
 */
export function wasClosed(fd: number): boolean {
  if ((libc().fcntl(fd, F_GETFL, 0n) & O_ACCMODE) !== O_RDWR) return false;
  try {
    return Deno.readLinkSync(`/proc/self/fd/${fd}`) === "/dev/null";
  } catch {
    return false;
  }
}

/** Whether the reader of a pipe or socket is gone. */
export function isUnread(fd: number): boolean {
  const pollfd = new Uint8Array(8);
  const view = new DataView(pollfd.buffer);
  view.setInt32(0, fd, true);
  return libc().poll(pollfd, 1n, 0) > 0 && (view.getInt16(6, true) & (POLLERR | POLLHUP)) !== 0;
}

/** Whether writes go to the end of the file, wherever its position is: the shell's `>>`. */
export function appends(fd: number): boolean {
  return (libc().fcntl(fd, F_GETFL, 0n) & O_APPEND) !== 0;
}

/**
 * Makes an inherited descriptor non-blocking without changing it for the processes that share it: a
 * pipe is opened a second time. A file never blocks for long; a terminal is left as it is.
 *
 * @returns The descriptor to use, and a function that gives it back.
 */
export function adopt(fd: number, direction: "read" | "write"): { fd: number; release(): void } {
  switch (kindOf(fd)) {
    case "pipe": {
      const flags = direction === "read"
        ? O_RDONLY | O_NONBLOCK | O_CLOEXEC
        : O_WRONLY | O_NONBLOCK | O_CLOEXEC;
      const own = libc().open(cString(`/proc/self/fd/${fd}`), flags, 0);
      libc().fcntl(fd, F_SETPIPE_SZ, BigInt(PIPE_BYTES));
      if (own >= 0) return { fd: own, release: () => void libc().close(own) };
      return nonblocking(fd);
    }
    case "socket":
      return nonblocking(fd);
    default:
      return { fd, release() {} };
  }
}

function nonblocking(fd: number): { fd: number; release(): void } {
  const flags = libc().fcntl(fd, F_GETFL, 0n);
  libc().fcntl(fd, F_SETFL, BigInt(flags | O_NONBLOCK));
  return { fd, release: () => void libc().fcntl(fd, F_SETFL, BigInt(flags)) };
}

/** Result of a read: a count, 0 at the end, or `undefined` when nothing is there yet. */
export type ReadResult = number | undefined;

/**
 * Reads what is there into `buffer`.
 *
 * @throws {TransportError} with the endpoint's name, and the party behind it.
 */
export function readSome(
  fd: number,
  buffer: Uint8Array<ArrayBuffer>,
  name: string,
  party: Party = "host",
): ReadResult {
  const count = Number(libc().read(fd, buffer, BigInt(buffer.length)));
  if (count >= 0) return count;
  const code = errno();
  if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return undefined;
  throw new TransportError(name, "read", errnoText(code), { party });
}

/** Ends our side of a connection; what was written still arrives. */
export function shutdownWrite(fd: number): void {
  libc().shutdown(fd, SHUT_WR);
}

const IOV_MAX = 512;
/** Pieces up to this size are copied together, which is cheaper than an `iovec` for each. */
const SMALL_BYTES = 1024;

/**
 * Writes queued pieces in order, gathering them into writev(2) calls without copying the large
 * ones. The large pieces stay the caller's, and must not change before {@link written} has passed
 * them.
 */
export class OutputQueue {
  #pieces: Uint8Array[] = [];
  #first = 0;
  #offset = 0;
  #queued = 0;
  #written = 0;
  /** `struct iovec` as 32-bit halves, low before high: numbers cost less than bigints. */
  readonly #iov = new Uint32Array(4 * IOV_MAX);
  readonly #iovBytes = new Uint8Array(this.#iov.buffer);
  readonly #small = new Uint8Array(64 * 1024);
  readonly #smallAddress = addressOf(this.#small.buffer);
  /** The memory of the last large piece: pieces of the same slab or segment follow each other. */
  #memory: ArrayBufferLike = this.#small.buffer;
  #memoryAddress = this.#smallAddress;

  /** @param name The endpoint, for errors, and the party behind it. */
  constructor(readonly fd: number, readonly name: string, readonly party: Party = "host") {}

  /** Bytes ever queued. */
  get queued(): number {
    return this.#queued;
  }
  /** Bytes ever written. */
  get written(): number {
    return this.#written;
  }
  get pendingBytes(): number {
    return this.#queued - this.#written;
  }

  push(pieces: readonly Uint8Array[]): void {
    for (const piece of pieces) {
      if (piece.length === 0) continue;
      this.#pieces.push(piece);
      this.#queued += piece.length;
    }
  }

  /**
   * Writes until all is written or the descriptor takes no more.
   *
   * @returns True when nothing is left.
   * @throws {TransportError}
   */
  flush(): boolean {
    while (this.#written < this.#queued) {
      const count = this.#gather();
      const wrote = Number(libc().writev(this.fd, this.#iovBytes, count));
      if (wrote < 0) {
        const code = errno();
        if (code === ERRNO.EAGAIN || code === ERRNO.EINTR) return false;
        throw new TransportError(this.name, "write", errnoText(code), {
          hint: code === ERRNO.ENOSPC || code === ERRNO.EDQUOT ? "free some space" : undefined,
          party: this.party,
          cause: code,
        });
      }
      this.#advance(wrote);
    }
    this.#pieces = [];
    this.#first = 0;
    return true;
  }

  /** Fills the vector from the front of the queue; small neighbours share an entry. */
  #gather(): number {
    let count = 0;
    let used = 0;
    let sharing = false;
    for (let i = this.#first; i < this.#pieces.length && count < IOV_MAX; i++) {
      const piece = i === this.#first && this.#offset > 0
        ? this.#pieces[i].subarray(this.#offset)
        : this.#pieces[i];
      if (piece.length <= SMALL_BYTES) {
        if (used + piece.length > this.#small.length) break;
        this.#small.set(piece, used);
        if (sharing) this.#iov[4 * count - 2] += piece.length;
        else this.#entry(count++, this.#smallAddress + used, piece.length);
        used += piece.length;
        sharing = true;
      } else {
        if (piece.buffer !== this.#memory) {
          this.#memory = piece.buffer;
          this.#memoryAddress = addressOf(piece.buffer);
        }
        this.#entry(count++, this.#memoryAddress + piece.byteOffset, piece.length);
        sharing = false;
      }
    }
    return count;
  }

  #entry(index: number, address: number, lengthBytes: number): void {
    this.#iov[4 * index] = address % 0x1_0000_0000;
    this.#iov[4 * index + 1] = address / 0x1_0000_0000;
    this.#iov[4 * index + 2] = lengthBytes;
    this.#iov[4 * index + 3] = 0;
  }

  #advance(wrote: number): void {
    this.#written += wrote;
    let left = wrote;
    while (left > 0) {
      const rest = this.#pieces[this.#first].length - this.#offset;
      if (left < rest) {
        this.#offset += left;
        return;
      }
      left -= rest;
      this.#first++;
      this.#offset = 0;
    }
    if (this.#first > 4096) {
      this.#pieces = this.#pieces.slice(this.#first);
      this.#first = 0;
    }
  }
}

/**
 * The address of a buffer, below 2⁵³ as all of user space. A buffer never moves: the runtime does
 * not compact them.
 */
export function addressOf(memory: ArrayBufferLike): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory as ArrayBuffer)));
}
