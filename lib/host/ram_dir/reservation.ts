/**
 * Reserves room for files that are to be mapped: a process that writes to a page for which the file
 * system has no room is ended.
 */
import { cString, errno, libc } from "../system/libc.ts";
import { ERRNO, O_CLOEXEC, O_RDWR } from "../system/linux.ts";
import { fileError } from "./ram_file.ts";

/**
 * Bytes that are reserved with one call; a reservation can be stopped between calls. Measured on
 * tmpfs: 512 MiB take 60 ms on a quiet machine, since the kernel writes zeros, 64 GiB some 8 s: it
 * is done on another thread, since heartbeats cannot wait.
 */
const CHUNK_BYTES = 256 * 2 ** 20;

/** A file that is to have room for all its bytes. */
interface WantedFile {
  readonly path: string;
  readonly lengthBytes: number;
}

/** Reserves room while other work goes on. The files keep their content. */
export class Reservation {
  /** Bytes for which room is reserved. */
  bytes = 0;
  isDone = false;
  /** @throws {TransportError} if there is not enough, or the file system cannot reserve any. */
  readonly done: Promise<void>;
  #cancelled = false;

  constructor(files: readonly WantedFile[]) {
    this.done = this.#reserve(files);
    this.done.catch(() => {});
  }

  /** Stops the reservation soon. */
  cancel(): void {
    this.#cancelled = true;
  }

  async #reserve(files: readonly WantedFile[]): Promise<void> {
    for (const file of files) {
      if (this.#cancelled) return;
      await this.#reserveFile(file);
    }
    this.isDone = !this.#cancelled;
  }

  async #reserveFile({ path, lengthBytes }: WantedFile): Promise<void> {
    if (hasAllRoom(path, lengthBytes)) {
      this.bytes += lengthBytes;
      return;
    }
    // A descriptor of its own: the file's may be closed meanwhile, and its number another file's.
    const fd = libc().open(cString(path), O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) throw fileError(path, "cannot open the file", errno());
    try {
      // Not posix_fallocate(3): where the system cannot reserve, the C library writes to the file,
      // over what others write.
      if (libc().fallocate(fd, 0, 0n, BigInt(Math.min(lengthBytes, 4096))) < 0) {
        const code = errno();
        if (code === ERRNO.EOPNOTSUPP) throw fileError(path, CANNOT, code, CANNOT_HINT);
      }
      for (let at = 0; at < lengthBytes && !this.#cancelled;) {
        const count = Math.min(CHUNK_BYTES, lengthBytes - at);
        const code = await libc().posixFallocateLater(fd, BigInt(at), BigInt(count));
        if (code !== 0 && code !== ERRNO.EINTR) {
          throw fileError(path, `no room for ${lengthBytes} bytes`, code, NO_ROOM_HINT);
        }
        if (code === 0) {
          at += count;
          this.bytes += count;
        }
      }
    } finally {
      libc().close(fd);
    }
  }
}

const CANNOT = "this file system cannot reserve room for a guest's RAM";
const CANNOT_HINT =
  "give recv a --ram-dir on a tmpfs, such as /dev/shm; or --ram-reserve none: then " +
  "a VM that has taken over dies where the file system is full";
const NO_ROOM_HINT = "free some space there, or give recv another --ram-dir";

/** Reserving a second time would take as long, and make a file of zeros seem full of data. */
function hasAllRoom(path: string, lengthBytes: number): boolean {
  const { blocks } = Deno.statSync(path);
  return (blocks ?? 0) * 512 >= lengthBytes;
}
