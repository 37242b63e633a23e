import { getLogger } from "@logtape/logtape";
import { TransportError, type TransportPhase } from "../../errors.ts";
import { NBD_STATE_HOLE, NBD_STATE_ZERO } from "../../nbd/wire.ts";
import type { Done } from "../../replica/events/done.ts";
import type { BlockBackend, StatusDone, ZeroFlags } from "./block_backend.ts";
import { addressOf, IMAGE_FLAG, IMAGE_OP, type ImageResult, SHRUNK } from "./image_calls.ts";
import { claimFlags, claimImage, claimRefusal, type ImageUse } from "./claim_image.ts";
import { ImageQueue } from "./image_queue.ts";
import { cString, errno, errnoText, libc } from "../system/libc.ts";
import { ERRNO, O_CLOEXEC, O_RDONLY, O_RDWR, RWF_NOWAIT, SEEK_END } from "../system/linux.ts";
import type { Reactor } from "../system/reactor.ts";

const log = getLogger(["kemari", "tap"]);

/** Storage that has not answered for this time is reported. */
const STALL_MS = 4000;
/** Bytes of requests that may be under way before no more requests of clients are taken. */
const MOST_CALLS = 256;
const MOST_BYTES = 64 * 2 ** 20;

/**
 * A raw image file or a block device, through the page cache.
 *
 * No call waits for storage: requests are done by the image's own thread, in the order of the calls
 * ({@link ImageQueue}). A read of data in the page cache is done on the spot, if no request under
 * way changes that range: that costs only the system call. There is no such short way for writes:
 * if a file system is frozen, a write waits even if it is told not to (Linux 6.18, pwritev2 with
 * RWF_NOWAIT takes the file system's lock first).
 *
 * The size is that at the time of opening. An image that shrank meanwhile is noticed when the
 * missing part is read, and at the next flush. After a flush that failed all later ones fail too:
 * the system forgets what it could not write, and would call the next flush a success.
 */
export class ImageFile implements BlockBackend {
  readonly #queue: ImageQueue;
  #fd: number;
  #flushError: TransportError | undefined;
  #readsOnTheSpot = true;
  #isFull = false;
  #isStalled = false;
  readonly #stopWatching: () => void;
  readonly #vector = new BigUint64Array(2);
  readonly #vectorBytes = new Uint8Array(this.#vector.buffer);

  /** Called when requests may come again, after {@link ready} has returned false. */
  onRoom: () => void = () => {};

  private constructor(
    reactor: Reactor,
    fd: number,
    readonly name: string,
    readonly sizeBytes: number,
    readonly readOnly: boolean,
    readonly isBlockDevice: boolean,
  ) {
    this.#fd = fd;
    this.#queue = new ImageQueue(reactor, fd, sizeBytes);
    this.#stopWatching = reactor.every(STALL_MS / 4, () => this.#lookForStall());
  }

  /**
   * Opens an image, and locks it unless it is read only. This waits for the storage, and so is done
   * before the image has clients.
   *
   * @throws {TransportError} if the path cannot be opened, is neither a file nor a block device, is
   *   not raw, or is in use.
   */
  static open(
    path: string,
    reactor: Reactor,
    use: ImageUse & { readonly readOnly?: boolean } = {},
  ): ImageFile {
    const readOnly = use.readOnly ?? false;
    const { isBlockDevice } = statOf(path);
    const flags = readOnly
      ? O_RDONLY | O_CLOEXEC
      : O_RDWR | O_CLOEXEC | claimFlags(isBlockDevice, use);
    const fd = libc().open(cString(path), flags, 0);
    if (fd < 0) {
      const code = errno();
      throw claimRefusal(path, code) ?? systemError(path, "read", "cannot open the image", code);
    }
    const size = Number(libc().lseek(fd, 0n, SEEK_END));
    if (size < 0) {
      const error = systemError(path, "read", "cannot find the image's size", errno());
      libc().close(fd);
      throw error;
    }
    try {
      if (!readOnly) claimImage(fd, path, { sizeBytes: size, isBlockDevice }, use);
    } catch (error) {
      libc().close(fd);
      throw error;
    }
    return new ImageFile(reactor, fd, path, size, readOnly, isBlockDevice);
  }

  /**
   * Allows short waits, for an image that a guest reads and writes: see {@link
   * ImageQueue.waitShortly}.
   */
  waitShortly(limitMs?: number): void {
    this.#queue.waitShortly(limitMs);
  }

  /** How many requests the storage has not answered yet. */
  get waiting(): number {
    return this.#queue.length;
  }
  /** For how long the storage has answered none of them, in milliseconds. */
  get stalledMs(): number {
    return this.#queue.stalledMs;
  }

  ready(): boolean {
    this.#isFull = this.#queue.length >= MOST_CALLS || this.#queue.bytes >= MOST_BYTES;
    return !this.#isFull;
  }

  read(into: Uint8Array<ArrayBuffer>, offset: number, done: Done): void {
    if (into.length === 0 || this.#readNow(into, offset)) return done();
    this.#submit(IMAGE_OP.READ, 0, offset, into.length, done, into, `cannot read`);
  }

  write(data: Uint8Array, offset: number, fua: boolean, done: Done): void {
    const flags = fua ? IMAGE_FLAG.FUA : 0;
    const memory = data as Uint8Array<ArrayBuffer>;
    this.#submit(IMAGE_OP.WRITE, flags, offset, data.length, done, memory, "cannot write");
  }

  flush(done: Done): void {
    this.#submit(IMAGE_OP.FLUSH, 0, 0, 0, done, undefined, "cannot flush");
  }

  trim(offset: number, lengthBytes: number, fua: boolean, done: Done): void {
    const flags = (fua ? IMAGE_FLAG.FUA : 0) | this.#deviceFlag;
    this.#submit(IMAGE_OP.TRIM, flags, offset, lengthBytes, done, undefined, "cannot trim");
  }

  zero(offset: number, lengthBytes: number, options: ZeroFlags, done: Done): void {
    const flags = (options.fua ? IMAGE_FLAG.FUA : 0) | (options.mayUnmap ? IMAGE_FLAG.UNMAP : 0) |
      (options.fast ? IMAGE_FLAG.FAST : 0) | this.#deviceFlag;
    this.#submit(IMAGE_OP.ZERO, flags, offset, lengthBytes, done, undefined, "cannot zero");
  }

  status(offset: number, lengthBytes: number, mostExtents: number, done: StatusDone): void {
    const found = new Float64Array(2 * mostExtents);
    this.#queue.submit({
      op: IMAGE_OP.STATUS,
      flags: 0,
      offset,
      lengthBytes,
      memory: found,
      changes: false,
      done: (result) => {
        this.#tellRoom();
        const error = this.#errorOf(result, "read", "its holes cannot be found");
        if (error !== undefined) return done([], error);
        done(Array.from({ length: result.at }, (_, i) => ({
          lengthBytes: found[2 * i],
          flags: found[2 * i + 1] === 1 ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0,
        })));
      },
    });
  }

  prefetch(offset: number, lengthBytes: number): void {
    this.#submit(IMAGE_OP.PREFETCH, 0, offset, lengthBytes, () => {}, undefined, "cannot prefetch");
  }

  /** Cancels the writes that were asked for and have not begun: each fails. */
  giveUpWrites(): void {
    this.#queue.giveUpChanges();
  }

  /**
   * Waits until all requests are done, and blocks this thread meanwhile: for the end, when what the
   * guest was told is written has to be written.
   *
   * @param untilMs When to give up, on performance.now().
   */
  finish(untilMs: number): void {
    this.#queue.finish(untilMs);
  }

  /**
   * Closes the image. Nothing is flushed; requests under way are given up, except the system call
   * that has begun, and their `done` is not called.
   */
  close(): void {
    if (this.#fd < 0) return;
    this.#fd = -1;
    this.#stopWatching();
    this.#queue.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  get #deviceFlag(): number {
    return this.isBlockDevice ? IMAGE_FLAG.DEVICE : 0;
  }

  /** Reads what is in memory already. @returns Whether that was the whole range. */
  #readNow(into: Uint8Array<ArrayBuffer>, offset: number): boolean {
    if (!this.#readsOnTheSpot || this.#queue.changesIn(offset, into.length)) return false;
    this.#vector[0] = BigInt(addressOf(into));
    this.#vector[1] = BigInt(into.length);
    const count = Number(
      libc().preadv2(this.#fd, this.#vectorBytes, 1, BigInt(offset), RWF_NOWAIT),
    );
    if (count === into.length) return true;
    // A file system that cannot tell whether a read would wait.
    if (count < 0 && errno() !== ERRNO.EAGAIN && errno() !== ERRNO.EINTR) {
      this.#readsOnTheSpot = false;
    }
    return false;
  }

  #submit(
    op: number,
    flags: number,
    offset: number,
    lengthBytes: number,
    done: Done,
    memory: Uint8Array<ArrayBuffer> | undefined,
    what: string,
  ): void {
    const changes = op === IMAGE_OP.WRITE || op === IMAGE_OP.ZERO || op === IMAGE_OP.TRIM;
    const phase = op === IMAGE_OP.READ ? "read" : "write";
    this.#queue.submit({
      op,
      flags,
      offset,
      lengthBytes,
      memory,
      changes,
      done: (result) => {
        this.#tellRoom();
        const isFlush = op === IMAGE_OP.FLUSH || (flags & IMAGE_FLAG.FUA) !== 0;
        if (isFlush && result.code === 0 && this.#flushError !== undefined) {
          return done(this.#flushError);
        }
        done(this.#errorOf(result, phase, what));
      },
    });
  }

  /** Logs a stall once, and its end. */
  #lookForStall(): void {
    const isStalled = this.stalledMs >= STALL_MS;
    if (isStalled === this.#isStalled) return;
    this.#isStalled = isStalled;
    const { name, waiting } = this;
    if (!isStalled) return log.info("image {name}: its storage answers again", { name });
    log.warn(
      "image {name}: its storage has not answered for {seconds} s, and {waiting} requests wait; " +
        "everything else goes on",
      { name, waiting, seconds: STALL_MS / 1000 },
    );
  }

  #tellRoom(): void {
    if (!this.#isFull || !this.ready()) return;
    this.onRoom();
  }

  #errorOf(
    { code, at, inFlush }: ImageResult,
    phase: TransportPhase,
    what: string,
  ): TransportError | undefined {
    if (code === 0) return undefined;
    if (code === SHRUNK) return this.#shrunk(at);
    if (inFlush) {
      return this.#flushError = systemError(this.name, "write", "cannot flush", code);
    }
    if (code === ERRNO.EOPNOTSUPP && what === "cannot zero") what = "cannot be zeroed quickly";
    return systemError(this.name, phase, `${what} at ${at}`, code);
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
