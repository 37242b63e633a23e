/**
 * Locks a disk's image, so that no other process writes it while kemari serves it, and detects a
 * process that has it locked already.
 *
 * The locks are QEMU's own (OFD locks, byte 100 + n for a permission that is held, 200 + n for one
 * that is not shared), so that QEMU, `qemu-img`, `qemu-nbd` and another kemari see kemari's locks,
 * and kemari sees theirs. On NFS 4 and cluster file systems they hold between hosts too.
 *
 * The two kemaris of one pair may both have a shared image: each locks a byte of {@link SEATS} for
 * itself, and a kemari that finds the other seat taken knows that the other locks are its
 * partner's. The byte {@link DOOR}, which one process locks at a time, keeps two from checking at
 * the same time.
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
/**
 * The permissions that QEMU takes for a disk that a guest writes, and the right to change its size.
 */
const LOCKED = [HELD + READ, HELD + WRITE, UNSHARED + WRITE, UNSHARED + RESIZE];
/** Locks that others must not have: to write the image, to resize it, and to allow no writer. */
const IN_THE_WAY = [HELD + WRITE, HELD + RESIZE, UNSHARED + READ, UNSHARED + WRITE];

const DOOR = 300;
const SEATS = [301, 302];
const DOOR_TRIES = 300;
const DOOR_TRY_MS = 10;

/**
 * Locks an open image until its descriptor is closed. If the file system has no such locks, kemari
 * warns, and uses the image without.
 *
 * @param fd Open for reading and writing.
 * @param isShared Whether the other end of the pair may lock it too.
 * @param commands The commands of fcntl(2), for tests.
 * @throws {TransportError} if another process has it locked.
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
  // First lock, then check: two that do so at the same time may both give up, but never both go on.
  for (const at of LOCKED) if (!locks.take(F_RDLCK, at)) throw inUse(path);
  if (IN_THE_WAY.some((at) => locks.isTaken(at))) throw inUse(path);
}

function takeSeat(locks: ByteLocks, path: string): void {
  for (let tries = DOOR_TRIES; !locks.take(F_WRLCK, DOOR); tries--) {
    if (tries === 0) throw inUse(path, "another process is opening it and does not finish");
    pause(DOOR_TRY_MS);
  }
  const isOccupied = SEATS.some((at) => locks.isTaken(at));
  if (!SEATS.some((at) => locks.take(F_WRLCK, at))) {
    throw inUse(path, "two kemaris share it already: a shared image belongs to one pair");
  }
  for (const at of LOCKED) if (!locks.take(F_RDLCK, at)) throw inUse(path);
  // A process with a seat has checked, and its locks have kept all others away since. A process
  // that is refused keeps the door locked until all of its locks go at once, with its descriptor.
  if (!isOccupied && IN_THE_WAY.some((at) => locks.isTaken(at))) throw inUse(path);
  locks.drop(DOOR, 1);
}

/** The file system or the kernel does not have such locks. */
class NoLocks extends Error {
  constructor(readonly code: number) {
    super();
  }
}

/** Locks on single bytes of one open file. */
class ByteLocks {
  constructor(private readonly fd: number, private readonly commands: typeof OFD) {}

  /** @returns Whether the lock could be taken. */
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

  /** Whether another process has a lock of any kind there. */
  isTaken(at: number): boolean {
    const record = lockRecord(F_WRLCK, at, 1);
    if (libc().fcntlLock(this.fd, this.commands.look, record) < 0) throw new NoLocks(errno());
    return new DataView(record.buffer).getInt16(0, true) !== F_UNLCK;
  }

  /** @param lengthBytes 0: everything from there on. */
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

/** Blocks this thread for a time: nothing is served yet. */
export function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/**
 * The error for an image that is in use.
 *
 * @param what What is said instead of that it is locked.
 */
export function inUse(path: string, what = "another process has it locked"): TransportError {
  const holders = holdersOf(path);
  const who = holders.length === 0 ? "" : `; open in ${holders.join(", ")}`;
  return new TransportError(path, "read", `the image is in use: ${what}${who}`, {
    party: "disk",
    hint: "two processes that write one image destroy it: end the other one, or name another " +
      "image; its owner may run on another host where the storage is shared",
  });
}

/** Other processes that have the file open, as far as this process may see. */
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
        // Another user's process, or gone.
      }
    }
  } catch {
    // The list is only a help.
  }
  return found;
}

/** @throws {TransportError} if a loop device uses the file: loop devices take no lock. */
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

/** @throws {TransportError} if two of the disks have the same image, whatever the paths. */
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
      // Opening the image will report what is wrong.
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
