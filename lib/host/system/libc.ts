/**
 * The few system calls that the data path needs and the runtime does not offer: poll(2), reads
 * into a given buffer, gathering writes, raw sockets. Linux with glibc.
 *
 * Measured, 2 cores: a call costs 0.1–0.4 µs. The runtime's own asynchronous reads move
 * 0.6–0.9 GB/s from a pipe, read(2) into one buffer 3–4 GB/s.
 */
import { StateError } from "../../errors.ts";
import {
  ERRNO,
  MADV_HUGEPAGE,
  MAP_ANONYMOUS,
  MAP_PRIVATE,
  MAP_SHARED,
  PROT_READ,
  PROT_WRITE,
} from "./linux.ts";

const SYMBOLS = {
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  pollLater: {
    name: "poll",
    parameters: ["buffer", "u64", "i32"],
    result: "i32",
    nonblocking: true,
  },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  writev: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  close: { parameters: ["i32"], result: "i32" },
  dup2: { parameters: ["i32", "i32"], result: "i32" },
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
  fcntlLock: { name: "fcntl", parameters: ["i32", "i32", "buffer"], result: "i32" },
  fstat: { parameters: ["i32", "buffer"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  accept4: { parameters: ["i32", "buffer", "buffer", "i32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
  if_indextoname: { parameters: ["u32", "buffer"], result: "pointer" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "isize" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  /** Returns the error number: {@link errno} is another thread's. */
  posixFallocateLater: {
    name: "posix_fallocate",
    parameters: ["i32", "i64", "i64"],
    result: "i32",
    nonblocking: true,
  },
  posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
  // On another thread, as the storage behind them may hang. They return only whether they
  // succeeded.
  setxattr: {
    parameters: ["buffer", "buffer", "buffer", "usize", "i32"],
    result: "i32",
    nonblocking: true,
  },
  removexattr: { parameters: ["buffer", "buffer"], result: "i32", nonblocking: true },
  getxattr: {
    parameters: ["buffer", "buffer", "buffer", "usize"],
    result: "isize",
    nonblocking: true,
  },
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
  munmap: { parameters: ["pointer", "usize"], result: "i32" },
  flock: { parameters: ["i32", "i32"], result: "i32" },
  madvise: { parameters: ["pointer", "usize", "i32"], result: "i32" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

let library: Deno.DynamicLibrary<typeof SYMBOLS> | undefined;
let errnoView: Int32Array | undefined;

/** The C library's symbols, opened at the first call. */
export function libc(): Deno.DynamicLibrary<typeof SYMBOLS>["symbols"] {
  if (library === undefined) {
    if (Deno.build.os !== "linux") {
      throw new StateError(`kemari runs on Linux, not ${Deno.build.os}`);
    }
    library = Deno.dlopen("libc.so.6", SYMBOLS);
  }
  return library.symbols;
}

/** The error number of the last call that failed. Read it before the next call. */
export function errno(): number {
  // Commands run on one thread, whose errno never moves.
  errnoView ??= new Int32Array(
    Deno.UnsafePointerView.getArrayBuffer(libc().__errno_location()!, 4),
  );
  return errnoView[0];
}

const ERRNO_TEXT: Readonly<Record<number, string>> = {
  [ERRNO.EPERM]: "operation not permitted",
  [ERRNO.ENOENT]: "no such file",
  [ERRNO.EIO]: "input/output error",
  [ERRNO.ENOMEM]: "out of memory",
  [ERRNO.EROFS]: "read-only file system",
  [ERRNO.EOPNOTSUPP]: "not supported",
  [ERRNO.EACCES]: "permission denied",
  [ERRNO.EAGAIN]: "not now",
  [ERRNO.ENOSPC]: "no space left on the device",
  [ERRNO.EDQUOT]: "disk quota exceeded",
  [ERRNO.EBUSY]: "in use",
  [ERRNO.ENOLCK]: "no locks available",
  [ERRNO.ENOSYS]: "the system does not know how",
  [ERRNO.ECANCELED]: "given up, since kemari ends",
  [ERRNO.EFBIG]: "file too large",
  [ERRNO.EPIPE]: "the reader is gone",
  [ERRNO.EADDRINUSE]: "address already in use",
  [ERRNO.EADDRNOTAVAIL]: "address not available on this host",
  [ERRNO.ENETUNREACH]: "network unreachable",
  [ERRNO.ECONNRESET]: "connection reset by the peer",
  [ERRNO.ETIMEDOUT]: "connection timed out",
  [ERRNO.ECONNREFUSED]: "connection refused",
  [ERRNO.EHOSTUNREACH]: "host unreachable",
};

/** An error number in words. */
export function errnoText(code: number): string {
  return ERRNO_TEXT[code] ?? `system error ${code}`;
}

/** A file name as C wants it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  const encoded = new TextEncoder().encode(text);
  const bytes = new Uint8Array(encoded.length + 1);
  bytes.set(encoded);
  return bytes;
}

/**
 * Allocates zeroed memory that huge pages may back, for slabs of guest pages. The memory is never
 * given back: slabs live as long as the process.
 */
export function allocateSlab(bytes: number): Uint8Array {
  // A huge page must be aligned: reserve one more slab's worth of addresses and use its middle.
  const reserved = libc().mmap(
    0n,
    BigInt(2 * bytes),
    PROT_READ | PROT_WRITE,
    MAP_PRIVATE | MAP_ANONYMOUS,
    -1,
    0n,
  );
  const address = Deno.UnsafePointer.value(reserved);
  if (BigInt.asIntN(64, BigInt(address)) === -1n) return new Uint8Array(bytes);
  const size = BigInt(bytes);
  const aligned = Deno.UnsafePointer.create((BigInt(address) + size - 1n) / size * size)!;
  libc().madvise(aligned, size, MADV_HUGEPAGE);
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(aligned, bytes));
}

/** A file's bytes in memory, shared with other processes that map the file. */
export interface SharedMapping {
  /** The mapping in windows of one size, the last one shorter. No array must be used after close. */
  readonly windows: readonly Uint8Array[];
  /** Removes the mapping. */
  close(): void;
}

/**
 * Maps a file, shared.
 *
 * Touching a part of it for which the file system has no room ends the process (SIGBUS): reserve
 * it first, with fallocate(2).
 *
 * @param windowBytes Largest size of one array: JavaScript engines limit the length of an array.
 * @returns `undefined` if the system refuses; {@link errno} tells why.
 */
export function mapShared(
  fd: number,
  lengthBytes: number,
  windowBytes: number,
): SharedMapping | undefined {
  const base = libc().mmap(0n, BigInt(lengthBytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0n);
  const address = BigInt(Deno.UnsafePointer.value(base));
  if (BigInt.asIntN(64, address) === -1n) return undefined;
  const windows: Uint8Array[] = [];
  for (let at = 0; at < lengthBytes; at += windowBytes) {
    const start = Deno.UnsafePointer.create(address + BigInt(at))!;
    const length = Math.min(windowBytes, lengthBytes - at);
    windows.push(new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(start, length)));
  }
  return { windows, close: () => void libc().munmap(base, BigInt(lengthBytes)) };
}
