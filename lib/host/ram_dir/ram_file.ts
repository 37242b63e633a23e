import { TransportError } from "../../errors.ts";
import { PageTable } from "../../replica/pages/page_table.ts";
import { cString, errno, errnoText, libc, mapShared, type SharedMapping } from "../system/libc.ts";
import {
  ERRNO,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  O_CLOEXEC,
  O_CREAT,
  O_RDWR,
  SEEK_DATA,
  SEEK_HOLE,
} from "../system/linux.ts";

const WINDOW_BYTES = 2 ** 30;

/** Values in the page table: the file has the page's content, or has a hole there. */
const DATA = 1;

/**
 * The committed pages of one RAM block in a sparse file that a standby QEMU may map as its RAM.
 *
 * Pages of zeros are holes. The mapping is written only where the file has room already: a write to
 * a page for which tmpfs has no room would end the process.
 */
export class RamFile {
  readonly #fd: number;
  readonly #mapping: SharedMapping;
  readonly #table: PageTable;
  readonly #windowPages: number;
  /** Whether the file keeps its room; and whether it has room for all pages by now. */
  readonly #keepsRoom: boolean;
  hasRoom = false;
  #reserved: [first: number, count: number][] = [];
  /** How many pages have content. */
  dataPages = 0;

  private constructor(
    readonly path: string,
    readonly pageBytes: number,
    fd: number,
    mapping: SharedMapping,
    pages: number,
    keepsRoom: boolean,
  ) {
    this.#keepsRoom = keepsRoom;
    this.#fd = fd;
    this.#mapping = mapping;
    this.#table = new PageTable(pages);
    this.#windowPages = WINDOW_BYTES / pageBytes;
  }

  /**
   * Opens the file, or makes it.
   *
   * @param keepContent Whether the file's content is the block's; otherwise it is thrown away.
   * @param keepsRoom Whether pages of zeros keep their room, for a VM that runs on the file.
   * @throws {TransportError} if the file cannot be opened or made.
   */
  static open(
    path: string,
    lengthBytes: number,
    pageBytes: number,
    keepContent: boolean,
    keepsRoom: boolean,
  ): RamFile {
    const fd = libc().open(cString(path), O_RDWR | O_CREAT | O_CLOEXEC, 0o600);
    if (fd < 0) throw fileError(path, "cannot open the file", errno());
    const size = keepContent ? libc().lseek(fd, 0n, 2) : 0n;
    const failed = keepContent
      ? size !== BigInt(lengthBytes)
      : libc().ftruncate(fd, 0n) < 0 || libc().ftruncate(fd, BigInt(lengthBytes)) < 0;
    if (failed) {
      const error = keepContent
        ? new TransportError(path, "read", `has ${size} bytes, and the block ${lengthBytes}`, {
          party: "replica",
        })
        : fileError(path, `cannot make it ${lengthBytes} bytes long`, errno());
      libc().close(fd);
      throw error;
    }
    const mapping = mapShared(fd, lengthBytes, WINDOW_BYTES);
    if (mapping === undefined) {
      const error = fileError(path, "cannot map it", errno());
      libc().close(fd);
      throw error;
    }
    const pages = lengthBytes / pageBytes;
    const file = new RamFile(path, pageBytes, fd, mapping, pages, keepsRoom);
    if (keepContent) file.#findPages(lengthBytes);
    return file;
  }

  page(page: number): Uint8Array | undefined {
    return this.#table.get(page) === DATA ? this.#view(page) : undefined;
  }

  nextPage(from: number): number {
    return this.#table.next(from);
  }

  /** Makes room for pages; each page is zeros until it is put. @throws {TransportError} ENOSPC. */
  reserve(pages: Uint32Array): void {
    if (this.hasRoom) return;
    for (let i = 0; i < pages.length;) {
      const first = pages[i];
      let count = 0;
      // Pages mostly come in order: neighbours need only one call.
      while (i < pages.length && pages[i] === first + count) {
        if (this.#table.get(pages[i]) === DATA) break;
        count++;
        i++;
      }
      if (count === 0) i++;
      else this.#allocate(first, count);
    }
  }

  unreserve(): void {
    for (const [first, count] of this.#keepsRoom ? [] : this.#reserved) {
      for (let page = first; page < first + count; page++) {
        if (this.#table.get(page) !== DATA) this.#punch(page);
      }
    }
    this.#reserved = [];
  }

  /** Copies a page for which there is room. */
  put(page: number, slab: Uint8Array, at: number): void {
    this.#view(page).set(slab.subarray(at, at + this.pageBytes));
    this.#setData(page);
    if (this.#reserved.length > 0) this.#reserved = [];
  }

  /** Writes a page, whether there is room or not. @throws {TransportError} ENOSPC. */
  write(page: number, bytes: Uint8Array): void {
    this.#pwrite(page, bytes);
    this.#setData(page);
  }

  #pwrite(page: number, bytes: Uint8Array): void {
    const offset = page * this.pageBytes;
    for (let done = 0; done < bytes.length;) {
      const rest = (done === 0 ? bytes : bytes.subarray(done)) as Uint8Array<ArrayBuffer>;
      const count = Number(
        libc().pwrite(this.#fd, rest, BigInt(rest.length), BigInt(offset + done)),
      );
      if (count > 0) done += count;
      else {
        const code = errno();
        if (code !== ERRNO.EINTR) throw fileError(this.path, `cannot write at ${offset}`, code);
      }
    }
  }

  clear(page: number): void {
    if (this.#table.get(page) !== DATA) return;
    // The page has room: it was written before.
    if (this.#keepsRoom || !this.#punch(page)) this.#view(page).fill(0);
    this.#table.set(page, 0);
    this.dataPages--;
  }

  /** Closes the mapping and the descriptor; the file stays. */
  close(): void {
    this.#mapping.close();
    libc().close(this.#fd);
  }

  #view(page: number): Uint8Array {
    const window = Math.floor(page / this.#windowPages);
    const offset = (page - window * this.#windowPages) * this.pageBytes;
    return this.#mapping.windows[window].subarray(offset, offset + this.pageBytes);
  }

  #setData(page: number): void {
    if (this.#table.get(page) === DATA) return;
    this.#table.set(page, DATA);
    this.dataPages++;
  }

  #allocate(first: number, count: number): void {
    const [offset, length] = [first * this.pageBytes, count * this.pageBytes];
    this.#reserved.push([first, count]);
    while (libc().fallocate(this.#fd, 0, BigInt(offset), BigInt(length)) < 0) {
      const code = errno();
      if (code === ERRNO.EOPNOTSUPP) return this.#writeZeros(first, count);
      if (code !== ERRNO.EINTR) throw fileError(this.path, `no room for ${length} bytes`, code);
    }
  }

  /** Makes pages holes, without content. */
  #writeZeros(first: number, count: number): void {
    const zeros = new Uint8Array(this.pageBytes);
    for (let page = first; page < first + count; page++) this.#pwrite(page, zeros);
  }

  /** @returns False if the file system cannot punch holes. */
  #punch(page: number): boolean {
    const mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    const offset = BigInt(page * this.pageBytes);
    while (libc().fallocate(this.#fd, mode, offset, BigInt(this.pageBytes)) < 0) {
      if (errno() !== ERRNO.EINTR) return false;
    }
    return true;
  }

  /** Finds the pages that an earlier process has put: those outside of holes that are not zeros. */
  #findPages(lengthBytes: number): void {
    for (let at = 0; at < lengthBytes;) {
      const data = Number(libc().lseek(this.#fd, BigInt(at), SEEK_DATA));
      if (data < 0) {
        if (errno() === ERRNO.ENXIO) return;
        throw fileError(this.path, "cannot find its holes", errno());
      }
      const end = Number(libc().lseek(this.#fd, BigInt(data), SEEK_HOLE));
      at = end < 0 ? lengthBytes : end;
      const last = Math.ceil(at / this.pageBytes);
      for (let page = Math.floor(data / this.pageBytes); page < last; page++) {
        if (!isZero(this.#view(page))) this.#setData(page);
      }
    }
  }
}

function isZero(page: Uint8Array): boolean {
  const words = new BigUint64Array(page.buffer, page.byteOffset, page.length / 8);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0n) return false;
  return true;
}

/** @param code Becomes the error's cause, by which callers recognize a full disk. */
export function fileError(
  path: string,
  what: string,
  code: number,
  hint?: string,
): TransportError {
  const full = code === ERRNO.ENOSPC || code === ERRNO.EDQUOT;
  return new TransportError(path, "write", `${what}: ${errnoText(code)}`, {
    party: "replica",
    hint: hint !== undefined
      ? hint
      : full
      ? "free some space there, or give recv another --ram-dir"
      : undefined,
    cause: code,
  });
}

/** Removes a file that may be gone already. */
export function removeQuietly(path: string, recursive = false): void {
  try {
    Deno.removeSync(path, { recursive });
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
