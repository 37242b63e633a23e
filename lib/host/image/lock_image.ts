/**
 * Claims a disk's image, so that nothing else writes it while kemari serves it, and notices what
 * does already.
 *
 * The locks are QEMU's own (OFD locks, byte 100 + n for a permission that is held, 200 + n for one
 * that is not shared), so that QEMU, `qemu-img`, `qemu-nbd` and another kemari see ours as we see
 * theirs. On NFS 4 and cluster file systems they hold between hosts too.
 *
 * Two kemaris may have one shared image, those of one pair: each takes a byte of its own of
 * {@link SEATS}, and who finds the other's there knows that the locks are the other's. A byte that
 * one process has alone ({@link DOOR}) keeps two from looking at the same time.
 *
 * @see QEMU block/file-posix.c, raw_apply_lock_bytes(), raw_check_lock_bytes()
 */
import { getLogger } from "@logtape/logtape";
import { TransportError } from "../../errors.ts";
import { errno, errnoText, libc } from "../system/libc.ts";
import { ERRNO, F_OFD_GETLK, F_OFD_SETLK, F_RDLCK, F_UNLCK, F_WRLCK } from "../system/linux.ts";

const log = getLogger(["kemari", "tap"]);

const OFD: { readonly look: number; readonly set: number } = {
  look: F_OFD_GETLK,
  set: F_OFD_SETLK,
};

/** QEMU's bits: consistent read 0, write 1, unchanged write 2, resize 3. */
const HELD = 100;
const UNSHARED = 200;
const READ = 0;
const WRITE = 1;
const RESIZE = 3;
/** What QEMU takes for a disk that a guest writes; and nobody else may change its size. */
const LOCKED = [HELD + READ, HELD + WRITE, UNSHARED + WRITE, UNSHARED + RESIZE];
/** What must not be there: who writes it, who resizes it, and who allows no writer. */
const IN_THE_WAY = [HELD + WRITE, HELD + RESIZE, UNSHARED + READ, UNSHARED + WRITE];

const DOOR = 300;
const SEATS = [301, 302];
const DOOR_TRIES = 300;
const DOOR_TRY_MS = 10;

/**
 * Locks an open image until its descriptor is closed. Where the file system has no such locks, that
 * is warned of, and the image is used without.
 *
 * @param fd Open for reading and writing.
 * @param isShared Whether the other end of the pair may have it too.
 * @param commands For tests: fcntl's.
 * @throws {TransportError} if something else has it.
 */
export function lockImage(fd: number, path: string, isShared: boolean, commands = OFD): void {
  const locks = new ByteLocks(fd, commands);
  try {
    if (isShared) takeSeat(locks, path);
    else takeAlone(locks, path);
  } catch (error) {
    if (!(error instanceof NoLocks)) throw error;
    log.warn(
      "{path}: it cannot be locked ({reason}): nothing keeps another QEMU or kemari from it",
      { path, reason: errnoText(error.code) },
    );
  }
}

function takeAlone(locks: ByteLocks, path: string): void {
  // First taken, then looked: two that do so at the same time may both give up, never both go on.
  for (const at of LOCKED) if (!locks.take(F_RDLCK, at)) throw inUse(path);
  if (IN_THE_WAY.some((at) => locks.isTaken(at))) throw inUse(path);
}

function takeSeat(locks: ByteLocks, path: string): void {
  for (let tries = DOOR_TRIES; !locks.take(F_WRLCK, DOOR); tries--) {
    if (tries === 0) throw inUse(path, "another process is opening it and does not get on");
    pause(DOOR_TRY_MS);
  }
  const isOccupied = SEATS.some((at) => locks.isTaken(at));
  if (!SEATS.some((at) => locks.take(F_WRLCK, at))) {
    throw inUse(path, "two kemaris share it already: a shared image belongs to one pair");
  }
  for (const at of LOCKED) if (!locks.take(F_RDLCK, at)) throw inUse(path);
  // Who has a seat has looked, and its locks have kept all others away since. Who is refused stays
  // in the door until all of its locks go at once, with its descriptor.
  if (!isOccupied && IN_THE_WAY.some((at) => locks.isTaken(at))) throw inUse(path);
  locks.drop(DOOR, 1);
}

/** The file system, or the system, knows no such locks. */
class NoLocks extends Error {
  constructor(readonly code: number) {
    super();
  }
}

/** Locks on single bytes of one open file. */
class ByteLocks {
  constructor(private readonly fd: number, private readonly commands: typeof OFD) {}

  /** @returns Whether it was to be had. */
  take(type: number, at: number): boolean {
    const record = lockRecord(type, at, 1);
    while (libc().fcntlLock(this.fd, this.commands.set, record) < 0) {
      const code = errno();
      if (code === ERRNO.EINTR) continue;
      if (code === ERRNO.EAGAIN || code === ERRNO.EACCES) return false;
      throw new NoLocks(code);
    }
    return true;
  }

  /** Whether another has a lock there, of any kind. */
  isTaken(at: number): boolean {
    const record = lockRecord(F_WRLCK, at, 1);
    if (libc().fcntlLock(this.fd, this.commands.look, record) < 0) throw new NoLocks(errno());
    return new DataView(record.buffer).getInt16(0, true) !== F_UNLCK;
  }

  /** @param lengthBytes 0: all from there on. */
  drop(at: number, lengthBytes: number): void {
    libc().fcntlLock(this.fd, this.commands.set, lockRecord(F_UNLCK, at, lengthBytes));
  }
}

/** `struct flock`: type, whence, 4 bytes of nothing, start, length, pid, 4 bytes of nothing. */
function lockRecord(type: number, at: number, lengthBytes: number): Uint8Array<ArrayBuffer> {
  const record = new Uint8Array(32);
  const view = new DataView(record.buffer);
  view.setInt16(0, type, true);
  view.setBigInt64(8, BigInt(at), true);
  view.setBigInt64(16, BigInt(lengthBytes), true);
  return record;
}

/** Stands still: nothing is served yet. */
export function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/**
 * The error for an image that something else has.
 *
 * @param what Instead of that it is locked.
 */
export function inUse(path: string, what = "another process has it locked"): TransportError {
  const holders = holdersOf(path);
  const who = holders.length === 0 ? "" : `; open in ${holders.join(", ")}`;
  return new TransportError(path, "read", `the image is in use: ${what}${who}`, {
    party: "disk",
    hint: "two that write one image destroy it: end the other one, or name another image; its " +
      "owner may run on another host where the storage is shared",
  });
}

/** Processes that have the file open, as far as this one may see; itself not counted. */
function holdersOf(path: string): string[] {
  const found: string[] = [];
  try {
    const { dev, ino, rdev, isBlockDevice } = Deno.statSync(path);
    for (const { name: pid } of Deno.readDirSync("/proc")) {
      if (!/^\d+$/.test(pid) || Number(pid) === Deno.pid) continue;
      try {
        for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
          const stat = Deno.statSync(`/proc/${pid}/fd/${name}`);
          const isSame = isBlockDevice
            ? stat.isBlockDevice && stat.rdev === rdev
            : stat.dev === dev && stat.ino === ino;
          if (!isSame) continue;
          found.push(`process ${pid} (${Deno.readTextFileSync(`/proc/${pid}/comm`).trim()})`);
          break;
        }
      } catch {
        // Somebody else's, or gone.
      }
    }
  } catch {
    // It is a help only.
  }
  return found;
}

/** @throws {TransportError} if a loop device has the file, which asks for no lock. */
export function refuseLooped(path: string): void {
  const { dev, ino } = Deno.statSync(path);
  for (const { name } of blockDevices()) {
    if (!name.startsWith("loop")) continue;
    try {
      const backing = Deno.readTextFileSync(`/sys/block/${name}/loop/backing_file`).trimEnd();
      const stat = Deno.statSync(backing);
      if (stat.dev !== dev || stat.ino !== ino) continue;
    } catch {
      // Not in use, or a file that is not to be seen from here.
      continue;
    }
    throw inUse(path, `it is attached to /dev/${name} (detach it: losetup -d /dev/${name})`);
  }
}

function blockDevices(): Iterable<Deno.DirEntry> {
  try {
    return Deno.readDirSync("/sys/block");
  } catch {
    return [];
  }
}

/** @throws {TransportError} if two of the images are one, whatever their paths. */
export function refuseTwice(
  disks: readonly { readonly name: string; readonly path: string }[],
): void {
  const seen = new Map<string, string>();
  for (const { name, path } of disks) {
    let key: string;
    try {
      const { dev, ino, rdev, isBlockDevice } = Deno.statSync(path);
      key = isBlockDevice ? `device ${rdev}` : `${dev}:${ino}`;
    } catch {
      // Opening it says what is wrong.
      continue;
    }
    const other = seen.get(key);
    if (other !== undefined) {
      throw new TransportError(path, "read", `disks ${other} and ${name} have the same image`, {
        party: "disk",
        hint: "give every --disk an image of its own",
      });
    }
    seen.set(key, name);
  }
}
