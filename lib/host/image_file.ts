import { TransportError, type TransportPhase } from "../errors.ts";
import type { Extent } from "../nbd/reply_writer.ts";
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from "../nbd/wire.ts";
import type { BlockBackend, ZeroOptions } from "./block_backend.ts";
import { claimFlags, claimImage, claimRefusal, type ImageUse } from "./image_claim.ts";
import { cString, ERRNO, errno, errnoText, libc } from "./libc.ts";

const O_RDONLY_CLOEXEC = 0o2000000;
const O_RDWR_CLOEXEC = 0o2000002;
const SEEK_END = 2;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 0x01;
const FALLOC_FL_PUNCH_HOLE = 0x02;
const FALLOC_FL_ZERO_RANGE = 0x10;
const POSIX_FADV_WILLNEED = 3;
const ZEROES = new Uint8Array(1 << 20);

/**
 * A raw image file or a block device, through the page cache.
 *
 * Its size is what it was when opened. An image that shrank meanwhile is noticed when the missing
 * part is read, and at the next flush. After a flush that failed all later ones fail too: the
 * system forgets what it could not write, and would call the next flush a success.
 */
export class ImageFile implements BlockBackend {
  #fd: number;
  #flushError: TransportError | undefined;

  private constructor(
    fd: number,
    readonly name: string,
    readonly sizeBytes: number,
    readonly readOnly: boolean,
    readonly isBlockDevice: boolean,
  ) {
    this.#fd = fd;
  }

  /**
   * Opens an image, and locks it unless it is read only.
   *
   * @throws {TransportError} where the path cannot be opened, is no file and no block device, is not
   *   raw, or is in use by something else.
   */
  static open(path: string, use: ImageUse & { readonly readOnly?: boolean } = {}): ImageFile {
    const readOnly = use.readOnly ?? false;
    const { isBlockDevice } = statOf(path);
    const flags = readOnly ? O_RDONLY_CLOEXEC : O_RDWR_CLOEXEC | claimFlags(isBlockDevice, use);
    const fd = libc().open(cString(path), flags, 0);
    if (fd < 0) {
      const code = errno();
      throw claimRefusal(path, code) ?? systemError(path, "read", "cannot open the image", code);
    }
    const size = Number(libc().lseek(fd, 0n, SEEK_END));
    if (size < 0) {
      const error = systemError(path, "read", "cannot tell the image's size", errno());
      libc().close(fd);
      throw error;
    }
    try {
      if (!readOnly) claimImage(fd, path, { sizeBytes: size, isBlockDevice }, use);
    } catch (error) {
      libc().close(fd);
      throw error;
    }
    return new ImageFile(fd, path, size, readOnly, isBlockDevice);
  }

  read(into: Uint8Array<ArrayBuffer>, offset: number): void {
    let done = 0;
    while (done < into.length) {
      const target = done === 0 ? into : into.subarray(done);
      const size = BigInt(target.length);
      const count = Number(libc().pread(this.#fd, target, size, BigInt(offset + done)));
      if (count > 0) done += count;
      else if (count === 0) throw this.#shrunk(offset + done);
      else this.#check("read", `cannot read at ${offset + done}`);
    }
  }

  write(data: Uint8Array, offset: number, fua: boolean): void {
    let done = 0;
    while (done < data.length) {
      const source = (done === 0 ? data : data.subarray(done)) as Uint8Array<ArrayBuffer>;
      const size = BigInt(source.length);
      const count = Number(libc().pwrite(this.#fd, source, size, BigInt(offset + done)));
      if (count >= 0) done += count;
      else this.#check("write", `cannot write at ${offset + done}`);
    }
    if (fua) this.flush();
  }

  flush(): void {
    if (this.#flushError !== undefined) throw this.#flushError;
    while (libc().fdatasync(this.#fd) < 0) {
      const code = errno();
      if (code === ERRNO.EINTR) continue;
      this.#flushError = systemError(this.name, "write", "cannot flush", code);
      throw this.#flushError;
    }
    this.#checkSize();
  }

  trim(offset: number, lengthBytes: number, fua: boolean): void {
    // A hint: where it cannot be followed, nothing is lost.
    this.#fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, lengthBytes, "trim");
    if (fua) this.flush();
  }

  zero(offset: number, lengthBytes: number, { fua, mayUnmap, fast }: ZeroOptions): void {
    if (!(mayUnmap && this.#punch(offset, lengthBytes) || this.#zeroRange(offset, lengthBytes))) {
      if (fast) {
        throw systemError(this.name, "write", "cannot zero quickly", ERRNO.EOPNOTSUPP);
      }
      for (let done = 0; done < lengthBytes; done += ZEROES.length) {
        this.write(ZEROES.subarray(0, lengthBytes - done), offset + done, false);
      }
    }
    if (fua) this.flush();
  }

  status(offset: number, lengthBytes: number, mostExtents: number): Extent[] {
    const end = offset + lengthBytes;
    const extents: Extent[] = [];
    let at = offset;
    while (at < end && extents.length < mostExtents) {
      const data = this.#seek(at, SEEK_DATA);
      const hole = data > at;
      const next = Math.min(end, hole ? data : this.#seek(at, SEEK_HOLE));
      extents.push({ lengthBytes: next - at, flags: hole ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0 });
      at = next;
    }
    return extents;
  }

  prefetch(offset: number, lengthBytes: number): void {
    libc().posix_fadvise(this.#fd, BigInt(offset), BigInt(lengthBytes), POSIX_FADV_WILLNEED);
  }

  /** Gives the descriptor back. Nothing is flushed. */
  close(): void {
    if (this.#fd >= 0) libc().close(this.#fd);
    this.#fd = -1;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #punch(offset: number, lengthBytes: number): boolean {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return this.#fallocate(mode, offset, lengthBytes, "zero");
  }

  /** Zeroes that keep their space. Where the file system lacks that: a hole, filled again. */
  #zeroRange(offset: number, lengthBytes: number): boolean {
    const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    if (this.#fallocate(mode, offset, lengthBytes, "zero")) return true;
    return !this.isBlockDevice && this.#punch(offset, lengthBytes) &&
      this.#fallocate(0, offset, lengthBytes, "zero");
  }

  /** @returns False where the file system or device cannot do it, or not in such small parts. */
  #fallocate(mode: number, offset: number, lengthBytes: number, what: string): boolean {
    while (libc().fallocate(this.#fd, mode, BigInt(offset), BigInt(lengthBytes)) < 0) {
      const code = errno();
      if (code === ERRNO.EINTR) continue;
      if (code === ERRNO.EOPNOTSUPP || code === ERRNO.EINVAL && this.isBlockDevice) return false;
      throw systemError(this.name, "write", `cannot ${what} at ${offset}`, code);
    }
    return true;
  }

  /** Where data or a hole begins, at `at` or after it. Beyond the last data all is hole. */
  #seek(at: number, whence: typeof SEEK_DATA | typeof SEEK_HOLE): number {
    const found = Number(libc().lseek(this.#fd, BigInt(at), whence));
    if (found >= 0) return found;
    const code = errno();
    if (code === ERRNO.ENXIO) {
      this.#checkSize();
      return this.sizeBytes;
    }
    // No such knowledge here: all may be data.
    if (code === ERRNO.EINVAL) return whence === SEEK_DATA ? at : this.sizeBytes;
    throw systemError(this.name, "read", `cannot tell holes at ${at}`, code);
  }

  #checkSize(): void {
    const size = Number(libc().lseek(this.#fd, 0n, SEEK_END));
    if (size >= 0 && size < this.sizeBytes) throw this.#shrunk(size);
  }

  #shrunk(end: number): TransportError {
    return new TransportError(
      this.name,
      "read",
      `the image ends at ${end} and had ${this.sizeBytes} bytes when it was opened`,
      {
        party: "disk",
        hint: "something else has shortened it: the disk's contents are in doubt",
        cause: ERRNO.EIO,
      },
    );
  }

  /** Throws for the call that has just failed, unless a signal was the reason. */
  #check(phase: TransportPhase, message: string): void {
    const code = errno();
    if (code !== ERRNO.EINTR) throw systemError(this.name, phase, message, code);
  }
}

function statOf(path: string): { isBlockDevice: boolean } {
  let stat: Deno.FileInfo;
  try {
    stat = Deno.statSync(path);
  } catch (cause) {
    throw new TransportError(path, "read", `cannot open the image: ${(cause as Error).message}`, {
      party: "disk",
      hint: "create it first, for example with `truncate -s 10G FILE`",
      cause,
    });
  }
  if (!stat.isFile && !stat.isBlockDevice) {
    throw new TransportError(path, "read", "an image is a file or a block device", {
      party: "disk",
      hint: "raw images only; convert others with `qemu-img convert -O raw`",
    });
  }
  return { isBlockDevice: stat.isBlockDevice === true };
}

function systemError(
  path: string,
  phase: TransportPhase,
  message: string,
  code: number,
): TransportError {
  const full = code === ERRNO.ENOSPC || code === ERRNO.EDQUOT;
  return new TransportError(path, phase, `${message}: ${errnoText(code)}`, {
    party: "disk",
    hint: full ? "free some space: the guest is told that its disk is full" : undefined,
    cause: code,
  });
}
