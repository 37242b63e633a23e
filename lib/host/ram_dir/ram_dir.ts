/**
 * A replica in files: RAM blocks that a standby QEMU can map, and the notes by which a new `kemari
 * recv` goes on with them after the last one was killed.
 *
 * ```text
 * DIR/lock               held by the one recv that uses the folder
 * DIR/state              which transaction, and whether all of it has been applied
 * DIR/GENERATION/        one image, see {@link FilePages}
 * DIR/machine-N          CONFIGURATION and VMDESCRIPTION; N counts their changes
 * DIR/device-0, -1       device state, in turn
 * DIR/sockets            where the sockets of a standby are
 * ```
 *
 * `state` is one write of less than a page, so that the file is either old or new. It says
 * `applying` before the first page changes and `whole` after the last: if the process is killed in
 * between, its replica is never offered. The file names the boot of the host too: after a crash of
 * the host, files need not have been written in order.
 */
import { tmpdir } from "node:os";
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import { getLogger } from "@logtape/logtape";
import { StateError, TransportError } from "../../errors.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import type { MachineRecord, PageStore, ReplicaStore } from "../../replica/pages/page_store.ts";
import type { StoredReplica } from "../../replica/secondary/stored_replica.ts";
import type { SlotPool } from "../../replica/pages/slot_pool.ts";
import {
  type BlockFile,
  blockPath,
  FilePages,
  readLayout,
  type RemoveFolder,
} from "./file_pages.ts";
import { cString, errno, libc } from "../system/libc.ts";
import { ERRNO, LOCK_EX, LOCK_NB, O_CLOEXEC, O_CREAT, O_RDWR } from "../system/linux.ts";
import { entriesOf, exists, isEmpty, readNote } from "./quiet_files.ts";
import { fileError, removeQuietly } from "./ram_file.ts";
import { judgeRoom, lookAtRoom } from "./ram_room.ts";
import type { RamReserve, RamStatus } from "../../control/receiver_status.ts";
import { decodeState, type StateMark } from "./ram_state.ts";

const log = getLogger(["kemari", "recv"]);

/** Bytes of the files beside the RAM: device state and such. */
const SPARE_BYTES = 16 * 2 ** 20;
/** The file that names the folder for sockets that belongs to this one. */
const SOCKET_NOTE = "sockets";

/** The folder. One process uses it at a time. */
export class RamDir implements ReplicaStore, Disposable {
  readonly writesThrough = true;
  readonly path: string;
  readonly reserve: RamReserve;
  readonly #lock: number;
  readonly #state: number;
  readonly #devices: readonly number[];
  readonly #bootId = Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
  #generation = 0;
  /** The generation that an earlier process has left. */
  #found = 0;
  #machine: MachineRecord | undefined;
  #machineFile = 0;
  #device = 0;
  /** The note on the last transaction. */
  #mark: StateMark | undefined;
  #pages: FilePages | undefined;
  /** The VM whose transactions are applied. */
  whose: () => VmIdentity = () => ({});
  /** The disks that go with it. */
  disks: readonly string[] = [];
  /** The image that was made last, committed or not. */
  #latest: FilePages | undefined;
  /** Called with a VM's RAM blocks when their files exist, before they have pages. */
  onImage: (blocks: readonly BlockFile[]) => void = () => {};
  /** Removes an image's folder: if it has many GiB on a tmpfs, that takes seconds. */
  removeFolder: RemoveFolder = (folder) => removeQuietly(folder, true);

  /** Whether this process made the folder, and removes it. */
  readonly #made: boolean;

  private constructor(path: string, lock: number, made: boolean, reserve: RamReserve) {
    this.path = path;
    this.reserve = reserve;
    this.#lock = lock;
    this.#made = made;
    this.#state = openFile(`${path}/state`);
    this.#devices = [openFile(`${path}/device-0`), openFile(`${path}/device-1`)];
  }

  /**
   * Opens the folder, or makes it, and takes its lock.
   *
   * @param reserve Whether to reserve room for all RAM of a VM that goes on in these files.
   * @throws {TransportError} if another process uses the folder, if it belongs to another user, or
   *   cannot be used.
   */
  static open(path: string, reserve: RamReserve = "none"): RamDir {
    let made = false;
    try {
      made = !exists(path);
      Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new TransportError(path, "write", `cannot make the folder for the RAM's files`, {
        party: "replica",
        hint: "give recv another --ram-dir",
        cause,
      });
    }
    const { uid, isSymlink } = Deno.lstatSync(path);
    if (isSymlink || uid !== Deno.uid()) {
      throw new TransportError(path, "write", "the folder for the RAM's files is not this user's", {
        party: "replica",
        hint: "guest memory is private: give recv a --ram-dir of its own",
      });
    }
    Deno.chmodSync(path, 0o700);
    const lock = openFile(`${path}/lock`);
    if (libc().flock(lock, LOCK_EX | LOCK_NB) < 0) {
      const code = errno();
      libc().close(lock);
      if (code !== ERRNO.EAGAIN) throw fileError(path, "cannot be locked", code);
      throw new TransportError(path, "write", "another kemari recv uses these files", {
        party: "replica",
        hint: "end that one, or give this one a --ram-dir of its own",
      });
    }
    return new RamDir(path, lock, made, reserve);
  }

  /**
   * Finds the replica that an earlier process committed here, if it is whole. If there is none, the
   * folder is emptied.
   *
   * @returns What was found, or why there is no replica.
   */
  recover(): StoredReplica | { readonly nothing: string } {
    const found = this.#recover();
    if ("nothing" in found) this.discard();
    else this.#removeImages(`${this.#found}`);
    return found;
  }

  #recover(): StoredReplica | { readonly nothing: string } {
    try {
      const mark = decodeState(Deno.readTextFileSync(`${this.path}/state`));
      if (mark === undefined) return { nothing: "there was no replica" };
      if (mark.bootId !== this.#bootId) return { nothing: "the host has been booted since" };
      if (mark.phase !== "whole") {
        const what = mark.phase === "applying" ? "was being applied" : "was given to a VM";
        return { nothing: `transaction ${mark.transaction} ${what}` };
      }
      this.#found = mark.generation;
      const folder = `${this.path}/${mark.generation}`;
      const { pageBytes, blocks } = readLayout(folder);
      const machine = Deno.readFileSync(`${this.path}/machine-${mark.machineFile}`);
      const device = Deno.readFileSync(`${this.path}/device-${mark.device}`);
      if (
        machine.length !== mark.configurationBytes + mark.vmdescriptionBytes ||
        device.length < mark.deviceBytes
      ) return { nothing: "its files are not complete" };
      const record = {
        configuration: machine.slice(0, mark.configurationBytes),
        vmdescription: machine.slice(mark.configurationBytes),
        device: device.slice(0, mark.deviceBytes),
      };
      for (const { name, lengthBytes } of blocks) {
        const path = blockPath(folder, name);
        if (Deno.statSync(path).size !== lengthBytes) return { nothing: `${path} has changed` };
      }
      return {
        ...record,
        transaction: mark.transaction,
        vm: mark.vm,
        disks: mark.disks,
        blocks,
        pageBytes,
        open: (pool) => {
          this.#generation = mark.generation;
          this.#machineFile = mark.machineFile;
          this.#device = mark.device;
          this.#mark = mark;
          const { path, reserve, removeFolder } = this;
          this.#pages = FilePages.open(path, mark.generation, blocks, pool, reserve, removeFolder);
          return this.#latest = this.#pages;
        },
      };
    } catch (error) {
      if (error instanceof StateError) throw error;
      return { nothing: `its files cannot be read: ${(error as Error).message}` };
    }
  }

  /**
   * Makes a folder for the sockets of the process that uses this folder, which is to remove it; the
   * folder that a killed process has left is removed. Sockets need short paths: the new folder is
   * with the temporary files.
   *
   * @throws {TransportError}
   */
  makeSocketFolder(): string {
    const note = `${this.path}/${SOCKET_NOTE}`;
    try {
      const left = readNote(note);
      if (/\/kemari-standby-[0-9a-f]+$/.test(left)) removeQuietly(left, true);
      // Noted before the folder is made: if this process is killed in between, the next one knows
      // of it.
      const id = crypto.getRandomValues(new Uint32Array(2)).reduce(
        (s, n) => s + n.toString(16),
        "",
      );
      const folder = `${tmpdir()}/kemari-standby-${id}`;
      Deno.writeTextFileSync(note, folder);
      Deno.mkdirSync(folder, { mode: 0o700 });
      return folder;
    } catch (cause) {
      throw new TransportError(
        this.path,
        "write",
        `cannot make a folder for the standby's sockets: ${(cause as Error).message}`,
        { party: "replica", cause },
      );
    }
  }

  /** Removes the folder's content. Not while a replica uses it. */
  discard(): void {
    this.#write(this.#state, new Uint8Array(0), 0);
    libc().ftruncate(this.#state, 0n);
    for (const { name } of entriesOf(this.path)) {
      if (/^machine-\d+$/.test(name)) removeQuietly(`${this.path}/${name}`);
    }
    this.#removeImages("");
  }

  /** Also removes what a process was about to remove when it was killed. */
  #removeImages(but: string): void {
    for (const { name } of entriesOf(this.path)) {
      if (/^\d+$/.test(name) && name !== but) removeQuietly(`${this.path}/${name}`, true);
    }
  }

  create(blocks: readonly RamBlock[], pool: SlotPool): PageStore {
    const wanted = blocks.reduce((sum, { lengthBytes }) => sum + lengthBytes, SPARE_BYTES);
    const verdict = judgeRoom(lookAtRoom(this.path, wanted), this.reserve);
    if (verdict.kind === "refused") {
      throw new TransportError(this.path, "write", verdict.why, {
        party: "replica",
        hint:
          "free some space there, or give recv another --ram-dir; an earlier replica in it, and " +
          "what was reserved for it, stays until the new one is whole",
        cause: ERRNO.ENOSPC,
      });
    }
    if (verdict.kind === "unsure") {
      log.warn("{folder}: {why}", { folder: this.path, why: verdict.why });
    }
    this.#generation++;
    const { path, reserve, removeFolder } = this;
    const pages = FilePages.create(path, this.#generation, blocks, pool, reserve, removeFolder);
    this.#latest = pages;
    this.onImage(pages.blockFiles);
    return pages;
  }

  /** The folder as `kemari status` shows it. */
  get status(): RamStatus {
    const all = new Set([this.#pages, this.#latest]);
    let reservedBytes = 0;
    for (const pages of all) {
      if (pages !== undefined && !pages.isReleased) reservedBytes += pages.reservedBytes;
    }
    return { folder: this.path, reserve: this.reserve, reservedBytes };
  }

  begin(transaction: number, machine: MachineRecord, store: PageStore): void {
    const pages = store as FilePages;
    const before = this.#machine;
    if (
      before?.configuration !== machine.configuration ||
      before.vmdescription !== machine.vmdescription
    ) {
      const path = `${this.path}/machine-${this.#machineFile + 1}`;
      const fd = openFile(path);
      try {
        this.#write(fd, machine.configuration, 0);
        this.#write(fd, machine.vmdescription, machine.configuration.length);
      } finally {
        libc().close(fd);
      }
      this.#machineFile++;
      this.#machine = machine;
      removeQuietly(`${this.path}/machine-${this.#machineFile - 2}`);
    }
    const device = 1 - this.#device;
    this.#write(this.#devices[device], machine.device, 0);
    const mark: StateMark = {
      phase: "applying",
      bootId: this.#bootId,
      transaction,
      generation: pages.generation,
      machineFile: this.#machineFile,
      configurationBytes: machine.configuration.length,
      vmdescriptionBytes: machine.vmdescription.length,
      device,
      deviceBytes: machine.device.length,
      vm: this.whose(),
      disks: this.disks,
    };
    this.#note(mark);
    this.#device = device;
    this.#mark = mark;
    this.#pages = pages;
  }

  end(): void {
    if (this.#mark === undefined) throw new StateError("no transaction is being applied");
    this.#mark = { ...this.#mark, phase: "whole" };
    this.#note(this.#mark);
  }

  /**
   * Notes that a VM is about to use these files: from now on they are no replica, unless {@link
   * takeBack} follows.
   */
  give(): void {
    if (this.#mark === undefined) throw new StateError("nothing was committed");
    this.#note({ ...this.#mark, phase: "given" });
  }

  /** No VM uses the files after all: they are a replica again. */
  takeBack(): void {
    if (this.#mark !== undefined) this.#note(this.#mark);
  }

  /** The committed image's files. */
  get files(): readonly BlockFile[] {
    return this.#pages?.blockFiles ?? [];
  }
  /** The committed image's pages. */
  get pages(): FilePages | undefined {
    return this.#pages;
  }

  /**
   * Removes the folder's files. A QEMU that maps the files keeps its memory.
   *
   * @param withFolder Whether to remove the folder too. A folder that this process made is removed
   *   anyway; a folder with files of others is never removed.
   */
  remove(withFolder: boolean): void {
    for (const name of ["state", "device-0", "device-1", SOCKET_NOTE]) {
      removeQuietly(`${this.path}/${name}`);
    }
    this.discard();
    removeQuietly(`${this.path}/lock`);
    if ((withFolder || this.#made) && isEmpty(this.path)) removeQuietly(this.path);
  }

  /** Releases the folder for other processes. */
  close(): void {
    for (const fd of [this.#state, ...this.#devices, this.#lock]) libc().close(fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #note(mark: StateMark): void {
    // Padded: otherwise a shorter note would leave the end of a longer one.
    const bytes = new TextEncoder().encode(JSON.stringify(mark).padEnd(STATE_BYTES - 1) + "\n");
    this.#write(this.#state, bytes, 0);
  }

  #write(fd: number, bytes: Uint8Array, offset: number): void {
    for (let done = 0; done < bytes.length;) {
      const rest = bytes.subarray(done) as Uint8Array<ArrayBuffer>;
      const count = Number(libc().pwrite(fd, rest, BigInt(rest.length), BigInt(offset + done)));
      if (count > 0) done += count;
      else {
        const code = errno();
        if (code !== ERRNO.EINTR) throw fileError(this.path, "cannot write", code);
      }
    }
  }
}

/** Bytes of `state`: less than a page, so that one write replaces all of it. */
const STATE_BYTES = 2048;

function openFile(path: string): number {
  const fd = libc().open(cString(path), O_RDWR | O_CREAT | O_CLOEXEC, 0o600);
  if (fd < 0) throw fileError(path, "cannot open the file", errno());
  return fd;
}
