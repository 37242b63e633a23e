/**
 * An image's operations, as system calls that may wait for its storage for any time: so they are
 * made on a thread of the image's own, see {@link file://./image_worker.ts}.
 *
 * Memory is given by address; the caller keeps it in place.
 */
import {
  ERRNO,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  POSIX_FADV_WILLNEED,
  SEEK_DATA,
  SEEK_END,
  SEEK_HOLE,
} from "../system/linux.ts";

/** The operations. */
export const IMAGE_OP = {
  READ: 1,
  WRITE: 2,
  FLUSH: 3,
  TRIM: 4,
  ZERO: 5,
  STATUS: 6,
  PREFETCH: 7,
} as const;

export const IMAGE_FLAG = {
  /** The data has to be on stable storage when the call is done. */
  FUA: 1,
  /** A hole will do for zeroes. */
  UNMAP: 2,
  /** Zeroes are wanted only if that is quick. */
  FAST: 4,
  /** The image is a block device. */
  DEVICE: 8,
} as const;

/** One request. */
export interface ImageCall {
  readonly op: number;
  readonly flags: number;
  readonly offset: number;
  readonly lengthBytes: number;
  /**
   * The address of the caller's memory, `lengthBytes` long; for STATUS, with room for `room`
   * extents.
   */
  readonly address: number;
  readonly room: number;
}

/** How it ended. */
export interface ImageResult {
  /** The system's error number; 0 for success; {@link SHRUNK} if the image has become shorter. */
  code: number;
  /**
   * The offset of the failure; for {@link SHRUNK} the image's end; for STATUS the number of extents
   * found.
   */
  at: number;
  /** Which step failed: the write itself, or the flush behind it. */
  inFlush: boolean;
}

/** Not an error number of the system's: the image is shorter than when it was opened. */
export const SHRUNK = -1;

/** How many bytes are zeroed before checking again whether to give up. */
const ZERO_BYTES = 1 << 20;
/** Larger holes are punched in parts: a call for a part cannot be interrupted. */
const PUNCH_BYTES = 2 ** 30;

const SYMBOLS = {
  pread: { parameters: ["i32", "usize", "usize", "i64"], result: "isize" },
  pwrite: { parameters: ["i32", "usize", "usize", "i64"], result: "isize" },
  fdatasync: { parameters: ["i32"], result: "i32" },
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" },
  posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" },
  __errno_location: { parameters: [], result: "pointer" },
} as const;

/** Carries out the operations on one descriptor, on the current thread. */
export class ImageCalls {
  readonly #libc = Deno.dlopen("libc.so.6", SYMBOLS).symbols;
  readonly #errno = new Int32Array(
    Deno.UnsafePointerView.getArrayBuffer(this.#libc.__errno_location()!, 4),
  );
  readonly #zeroes = new Uint8Array(ZERO_BYTES);
  readonly #zeroAddress = addressOf(this.#zeroes);
  readonly #result: ImageResult = { code: 0, at: 0, inFlush: false };

  /**
   * @param sizeBytes The image's size when it was opened.
   * @param givesUp Called during long work; if it returns true, the work ends as cancelled.
   */
  constructor(
    readonly fd: number,
    readonly sizeBytes: number,
    readonly givesUp: () => boolean = () => false,
  ) {}

  /** Carries a request out, and waits for its end. @returns An object that the next call reuses. */
  perform(call: ImageCall): ImageResult {
    const result = this.#result;
    result.code = result.at = 0;
    result.inFlush = false;
    const { offset, lengthBytes, flags } = call;
    switch (call.op) {
      case IMAGE_OP.READ:
        this.#read(call.address, lengthBytes, offset);
        break;
      case IMAGE_OP.WRITE:
        this.#write(call.address, lengthBytes, offset);
        break;
      case IMAGE_OP.FLUSH:
        this.#flush();
        break;
      case IMAGE_OP.TRIM:
        // Only a hint: a failure does no harm.
        this.#allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, lengthBytes, flags);
        break;
      case IMAGE_OP.ZERO:
        this.#zero(offset, lengthBytes, flags);
        break;
      case IMAGE_OP.STATUS:
        this.#status(call);
        break;
      case IMAGE_OP.PREFETCH:
        this.#libc.posix_fadvise(this.fd, BigInt(offset), BigInt(lengthBytes), POSIX_FADV_WILLNEED);
        break;
    }
    if ((flags & IMAGE_FLAG.FUA) !== 0 && result.code === 0) this.#flush();
    return result;
  }

  #fail(code: number, at: number): false {
    this.#result.code = code;
    this.#result.at = at;
    return false;
  }

  #read(address: number, lengthBytes: number, offset: number): void {
    for (let done = 0; done < lengthBytes;) {
      const count = Number(
        this.#libc.pread(
          this.fd,
          BigInt(address + done),
          BigInt(lengthBytes - done),
          BigInt(offset + done),
        ),
      );
      if (count > 0) done += count;
      else if (count === 0) {
        this.#fail(SHRUNK, offset + done);
        return;
      } else if (this.#errno[0] !== ERRNO.EINTR) {
        this.#fail(this.#errno[0], offset + done);
        return;
      }
    }
  }

  #write(address: number, lengthBytes: number, offset: number): boolean {
    for (let done = 0; done < lengthBytes;) {
      const count = Number(
        this.#libc.pwrite(
          this.fd,
          BigInt(address + done),
          BigInt(lengthBytes - done),
          BigInt(offset + done),
        ),
      );
      if (count >= 0) done += count;
      else if (this.#errno[0] !== ERRNO.EINTR) return this.#fail(this.#errno[0], offset + done);
    }
    return true;
  }

  #flush(): void {
    while (this.#libc.fdatasync(this.fd) < 0) {
      const code = this.#errno[0];
      if (code === ERRNO.EINTR) continue;
      this.#result.inFlush = true;
      this.#fail(code, 0);
      return;
    }
    this.#checkSize();
  }

  #zero(offset: number, lengthBytes: number, flags: number): void {
    const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const quickly = (flags & IMAGE_FLAG.UNMAP) !== 0 &&
        this.#allocate(punch, offset, lengthBytes, flags) ||
      this.#result.code === 0 && this.#zeroRange(offset, lengthBytes, flags);
    if (quickly || this.#result.code !== 0) return;
    if ((flags & IMAGE_FLAG.FAST) !== 0) {
      this.#fail(ERRNO.EOPNOTSUPP, offset);
      return;
    }
    for (let done = 0; done < lengthBytes; done += ZERO_BYTES) {
      if (this.givesUp()) {
        this.#fail(ERRNO.ECANCELED, offset + done);
        return;
      }
      const part = Math.min(ZERO_BYTES, lengthBytes - done);
      if (!this.#write(this.#zeroAddress, part, offset + done)) return;
    }
  }

  /**
   * Zeroes a range, and keeps its space. If the file system cannot do that: a hole, filled again.
   */
  #zeroRange(offset: number, lengthBytes: number, flags: number): boolean {
    const mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    if (this.#allocate(mode, offset, lengthBytes, flags)) return true;
    if (this.#result.code !== 0 || (flags & IMAGE_FLAG.DEVICE) !== 0) return false;
    const punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    return this.#allocate(punch, offset, lengthBytes, flags) &&
      this.#allocate(0, offset, lengthBytes, flags);
  }

  /** @returns False if the file system or device cannot do that, or if it has failed. */
  #allocate(mode: number, offset: number, lengthBytes: number, flags: number): boolean {
    for (let done = 0; done < lengthBytes;) {
      if (this.givesUp()) return this.#fail(ERRNO.ECANCELED, offset + done);
      const part = Math.min(PUNCH_BYTES, lengthBytes - done);
      if (this.#libc.fallocate(this.fd, mode, BigInt(offset + done), BigInt(part)) >= 0) {
        done += part;
        continue;
      }
      const code = this.#errno[0];
      if (code === ERRNO.EINTR) continue;
      if (code === ERRNO.EOPNOTSUPP) return false;
      // A device's blocks may be larger than this part.
      if (code === ERRNO.EINVAL && (flags & IMAGE_FLAG.DEVICE) !== 0) return false;
      return this.#fail(code, offset + done);
    }
    return true;
  }

  /** Writes pairs of f64, length and 1 for a hole, to the caller's memory. */
  #status({ offset, lengthBytes, address, room }: ImageCall): void {
    const memory = Deno.UnsafePointer.create(BigInt(address))!;
    const extents = new Float64Array(Deno.UnsafePointerView.getArrayBuffer(memory, 16 * room));
    const end = offset + lengthBytes;
    let count = 0;
    for (let at = offset; at < end && count < room; count++) {
      const data = this.#seek(at, SEEK_DATA);
      if (data === undefined) return;
      const isHole = data > at;
      const found = isHole ? data : this.#seek(at, SEEK_HOLE);
      if (found === undefined) return;
      const next = Math.min(end, found);
      extents[2 * count] = next - at;
      extents[2 * count + 1] = isHole ? 1 : 0;
      at = next;
    }
    this.#result.at = count;
  }

  /** Where data or a hole begins, at `at` or after it. Beyond the last data all is hole. */
  #seek(at: number, whence: typeof SEEK_DATA | typeof SEEK_HOLE): number | undefined {
    const found = Number(this.#libc.lseek(this.fd, BigInt(at), whence));
    if (found >= 0) return found;
    const code = this.#errno[0];
    if (code === ERRNO.ENXIO) return this.#checkSize() ? this.sizeBytes : undefined;
    // This file system does not tell: everything may be data.
    if (code === ERRNO.EINVAL) return whence === SEEK_DATA ? at : this.sizeBytes;
    this.#fail(code, at);
    return undefined;
  }

  #checkSize(): boolean {
    const size = Number(this.#libc.lseek(this.fd, 0n, SEEK_END));
    return size < 0 || size >= this.sizeBytes || this.#fail(SHRUNK, size);
  }
}

/**
 * Addresses of buffers that were asked for before: asking costs ten times as much as looking them
 * up here.
 */
const ADDRESSES = new WeakMap<ArrayBuffer, number>();

/** The address of an array's bytes. They stay there as long as the array exists. */
export function addressOf({ buffer, byteOffset }: ArrayBufferView<ArrayBuffer>): number {
  let address = ADDRESSES.get(buffer);
  if (address === undefined) {
    address = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer)));
    ADDRESSES.set(buffer, address);
  }
  return address + byteOffset;
}
