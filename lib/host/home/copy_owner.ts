/**
 * Whose disk a replicated disk's copy is: kept with the image itself, in the attribute
 * `user.kemari.copy-of`, as a `recv` that was started again knows of no session. Block devices and
 * some file systems have no attributes; then nothing is known.
 */
import { Buffer } from "node:buffer";
import { getLogger } from "@logtape/logtape";
import type { VmIdentity } from "../../decisions/whose_replica.ts";
import type { MarkedDisk } from "../image/image_marks.ts";
import { cString, libc } from "../system/libc.ts";
import { decodeVmNote } from "../ram_dir/ram_state.ts";

const log = getLogger(["kemari", "recv"]);

const ATTRIBUTE = cString("user.kemari.copy-of");
const MOST_BYTES = 2048;

/** Whose copy an image is, by its note. */
export interface CopyNote {
  readonly path: string;
  readonly vm: VmIdentity;
}

/** The copies of one `recv`. Their storage is asked off the caller's thread. */
export class CopyOwner {
  readonly #disks: readonly MarkedDisk[];

  constructor(disks: readonly MarkedDisk[]) {
    this.#disks = disks.filter(({ mode }) => mode === "replicated");
  }

  /** What is known of each copy's VM; nothing of those that bear no note. */
  async owners(): Promise<CopyNote[]> {
    return (await Promise.all(this.#disks.map(({ path }) => noteAt(path)))).flat();
  }

  /** A session is about to make the copies this VM's. */
  note(vm: VmIdentity): Promise<unknown> {
    const value = new TextEncoder().encode(JSON.stringify(vm));
    return Promise.all(
      this.#disks.map(({ path }) =>
        libc().setxattr(cString(path), ATTRIBUTE, value, BigInt(value.length), 0)
      ),
    );
  }

  /** They are copies no more: the VM runs on them. */
  clear(): Promise<unknown> {
    return Promise.all(this.#disks.map(({ path }) => libc().removexattr(cString(path), ATTRIBUTE)));
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
    log.warn("{path}: its attribute user.kemari.copy-of is none of kemari's", { path });
    return [];
  }
}
