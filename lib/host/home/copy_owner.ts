/**
 * Which VM the copy of a replicated disk belongs to. This is kept with the image, in the attribute
 * `user.kemari.copy-of`, since a `recv` that was started again knows of no session. Block devices
 * and some file systems have no attributes; then the owner is unknown.
 */
import { Buffer } from "node:buffer";
import { getLogger } from "@logtape/logtape";
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import type { MarkedDisk } from "../image/image_marks.ts";
import { cString, libc } from "../system/libc.ts";
import { within } from "../system/within.ts";
import { decodeVmNote } from "../ram_dir/ram_state.ts";

const log = getLogger(["kemari", "recv"]);

const ATTRIBUTE = cString("user.kemari.copy-of");
const MOST_BYTES = 2048;

/** The VM that an image's note names. */
export interface CopyNote {
  readonly path: string;
  readonly vm: VmIdentity;
}

/** How an image's note is written: resolves to 0 if that succeeded, else to another number. */
export interface NoteCalls {
  set(path: string, value: Uint8Array<ArrayBuffer>): Promise<number>;
  remove(path: string): Promise<number>;
}

const SYSTEM: NoteCalls = {
  set: (path, value) => libc().setxattr(cString(path), ATTRIBUTE, value, BigInt(value.length), 0),
  remove: (path) => libc().removexattr(cString(path), ATTRIBUTE),
};

/**
 * The copies of one `recv`. Their storage is accessed off the caller's thread; notes are written in
 * the order of the calls.
 */
export class CopyOwner {
  readonly #disks: readonly MarkedDisk[];
  readonly #calls: NoteCalls;
  /** Settles when all notes so far are written. */
  #written: Promise<unknown> = Promise.resolve();

  constructor(disks: readonly MarkedDisk[], calls = SYSTEM) {
    this.#disks = disks.filter(({ mode }) => mode === "replicated");
    this.#calls = calls;
  }

  /** Each copy's VM, for the copies that have a note. */
  async owners(): Promise<CopyNote[]> {
    return (await Promise.all(this.#disks.map(({ path }) => noteAt(path)))).flat();
  }

  /** Notes this VM: a session is about to make them its copies. */
  note(vm: VmIdentity): Promise<unknown> {
    const value = new TextEncoder().encode(JSON.stringify(vm));
    return this.#inTurn((path) => this.#calls.set(path, value));
  }

  /** Removes the notes: the VM runs on the images, which are no copies any more. */
  clear(): Promise<unknown> {
    return this.#inTurn((path) => this.#calls.remove(path));
  }

  /** Waits until all notes are written; if storage hangs, no longer than `limitMs`. */
  async settle(limitMs: number): Promise<void> {
    await within(limitMs, this.#written);
  }

  #inTurn(write: (path: string) => Promise<number>): Promise<unknown> {
    const written = this.#written.then(() =>
      Promise.all(this.#disks.map(({ path }) => write(path)))
    );
    this.#written = written.catch(() => {});
    return written;
  }
}

async function noteAt(path: string): Promise<CopyNote[]> {
  const value = new Uint8Array(MOST_BYTES);
  const name = cString(path);
  const length = Number(await libc().getxattr(name, ATTRIBUTE, value, BigInt(value.length)));
  if (length <= 0) return [];
  try {
    return [{ path, vm: decodeVmNote(Buffer.from(value.subarray(0, length)).toString()) }];
  } catch {
    log.warn("{path}: kemari did not write its attribute user.kemari.copy-of", { path });
    return [];
  }
}
