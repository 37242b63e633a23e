/**
 * A mark that a primary puts on its images before a session, and that a secondary looks for on its
 * own images: the mark can only get there if both are the same storage.
 * `lib/decisions/same_image.ts` decides what follows.
 *
 * An extended attribute of the file, and a file beside it, since some file systems show only one of
 * them to another host:
 *
 * ```text
 * user.kemari.mark            the mark, 32 hexadecimal digits
 * DIR/.kemari-mark-MARK       which file in DIR it is for: its inode, or "-", and its name
 * ```
 *
 * Both are removed when the secondary has looked. Nobody looks for the mark that a killed primary
 * leaves, and the next session removes it.
 */
import { randomBytes } from "node:crypto";
import { getLogger } from "@logtape/logtape";
import { mayUseImage, SEEN, UNSEEN } from "../../decisions/same_image.ts";
import { WireError } from "../../errors.ts";
import {
  decodeDiskMarks,
  type DiskMark,
  encodeDiskMark,
  MARK_BYTES,
} from "../../replica/events/disk_marks.ts";
import type { DiskMode } from "../../replica/events/tap_events.ts";
import type { HelloField } from "../../txn/hello_fields.ts";
import type { Hello } from "../../txn/hello.ts";
import { placeOf } from "./image_place.ts";
import { cString, libc } from "../system/libc.ts";
import { within } from "../system/within.ts";

const log = getLogger(["kemari", "tap"]);

const ATTRIBUTE = cString("user.kemari.mark");
const PREFIX = ".kemari-mark-";

/** A disk and its image's path. */
export interface MarkedDisk {
  readonly name: string;
  readonly path: string;
  readonly mode: DiskMode;
}

/** How long setting the marks may take before a session begins without them. */
const PLACE_MS = 5000;
/** How long to wait until the marks are removed. */
const REMOVE_MS = 500;

/**
 * The marks of one session at the primary. Every access to the images' storage is made off the loop
 * that serves the VM: if storage hangs, only the mark waits.
 */
export class ImageMarks {
  readonly #placed: (() => Promise<unknown>)[] = [];
  readonly #fields: HelloField[] = [];
  #isOver = false;
  #removing: Promise<unknown> = Promise.resolve();
  /** Resolves when no access to the images is under way any more. */
  readonly settled: Promise<unknown>;
  /** Resolves when each image has its mark, or cannot have a mark, or not in time. */
  readonly placed: Promise<unknown>;

  /**
   * Begins to put a mark on each image. An image that cannot be marked, or not in time, is not
   * mentioned to the secondary.
   */
  constructor(disks: readonly MarkedDisk[], timeoutMs = PLACE_MS) {
    this.settled = Promise.all(disks.map((disk) => this.#place(disk)));
    this.placed = within(timeoutMs, this.settled);
  }

  /** The marks as fields of HELLO. */
  get fields(): readonly HelloField[] {
    return this.#fields;
  }

  /**
   * Removes the marks, also those that are set later than expected. May be called again.
   *
   * @returns When none is left, or storage that hangs was waited for long enough.
   */
  async remove(): Promise<void> {
    this.#isOver = true;
    await within(REMOVE_MS, Promise.all([this.settled, this.#removePlaced()]));
  }

  #removePlaced(): Promise<unknown> {
    const removing = this.#placed.splice(0).map((remove) => remove());
    return this.#removing = Promise.all([this.#removing, ...removing]);
  }

  async #place({ name, path }: MarkedDisk): Promise<void> {
    const mark = new Uint8Array(randomBytes(MARK_BYTES));
    try {
      const files: string[] = [];
      const place = placeOf(path, await Deno.stat(path), (file) => {
        files.push(file);
        return SEEN;
      });
      for (const file of files) if (!await this.#put(file, mark.toHex())) return;
      if (!this.#isOver) this.#fields.push(encodeDiskMark({ name, mark, place }));
    } catch (error) {
      log.warn("disk {name}: no mark: {reason}", { name, reason: (error as Error).message });
    }
  }

  /** @returns Whether the mark could be set. */
  async #put(path: string, mark: string): Promise<boolean> {
    const value = cString(mark).subarray(0, mark.length);
    const file = cString(path);
    const length = BigInt(value.length);
    const hasAttribute = await libc().setxattr(file, ATTRIBUTE, value, length, 0) === 0;
    if (hasAttribute) this.#placed.push(() => libc().removexattr(file, ATTRIBUTE));
    const note = await writeNote(path, mark);
    if (note !== undefined) this.#placed.push(() => Deno.remove(note).catch(() => {}));
    if (this.#isOver) await this.#removePlaced();
    if (hasAttribute || note !== undefined) return true;
    log.warn(
      "{path}: it cannot be marked (neither an extended attribute nor a file beside it): kemari " +
        "cannot tell whether the secondary has the same image",
      { path },
    );
    return false;
  }
}

/**
 * Finds out whether a sender's image of a replicated disk is this end's own image. Every access to
 * the images' storage is made off the loop, as at the primary.
 *
 * @param disks This end's disks.
 * @returns A function that judges the sender; `offset` is that of HELLO's payload. The function
 *   throws a {@link WireError}: `same-image`; `bad-length` or `bad-value` for a field that is no
 *   mark.
 */
export async function lookForSameImages(
  hello: Hello,
  disks: readonly MarkedDisk[],
): Promise<(offset: number) => void> {
  const places = new Map<string, string>();
  for (const { name, mark } of marksOf(hello)) {
    const own = disks.find((disk) => disk.name === name);
    const place = own && await placeHere(own.path, mark.toHex()).catch(() => undefined);
    if (place !== undefined) places.set(name, place);
  }
  return (offset) => judgeImages(hello, offset, disks, places);
}

/** Decodes the marks; bytes that are no marks are left to the judge to refuse. */
function marksOf({ fields }: Hello): DiskMark[] {
  try {
    return decodeDiskMarks(fields, 0);
  } catch {
    return [];
  }
}

/** Where an image of this end is, and whether it has the mark. */
async function placeHere(path: string, mark: string): Promise<string> {
  const stat = await Deno.stat(path);
  const files: string[] = [];
  placeOf(path, stat, (file) => {
    files.push(file);
    return UNSEEN;
  });
  const marked = new Set<string>();
  for (const file of files) if (await hasMark(file, mark)) marked.add(file);
  return placeOf(path, stat, (file) => marked.has(file) ? SEEN : UNSEEN);
}

function judgeImages(
  hello: Hello,
  offset: number,
  disks: readonly MarkedDisk[],
  places: ReadonlyMap<string, string>,
): void {
  for (const { name, place } of decodeDiskMarks(hello.fields, offset)) {
    const own = disks.find((disk) => disk.name === name);
    const ours = places.get(name);
    if (own === undefined || ours === undefined) continue;
    switch (mayUseImage(own.mode, place, ours)) {
      case "refuse":
        throw new WireError(
          "transaction",
          offset,
          "same-image",
          `disk ${name}: ${own.path} here is the primary's own image, and mode=replicated wants ` +
            `two`,
          { hint: "give each side an image of its own, or write mode=shared at both ends" },
        );
      case "warn-same":
        log.warn(
          "disk {name}: {path} and the primary's image may be the same one (both are {place}): " +
            "mode=replicated destroys it then",
          { name, path: own.path, place: ours },
        );
        break;
      case "warn-apart":
        log.warn(
          "disk {name}: mode=shared, but {path} does not show the mark that is at the primary's " +
            "image: are they the same file?",
          { name, path: own.path },
        );
    }
  }
}

/** Whether a file has the mark, or has the marking file beside it. */
async function hasMark(path: string, mark: string): Promise<boolean> {
  const value = new Uint8Array(2 * MARK_BYTES);
  const name = cString(path);
  const length = await libc().getxattr(name, ATTRIBUTE, value, BigInt(value.length));
  if (Number(length) === value.length && new TextDecoder().decode(value) === mark) return true;
  try {
    const real = await Deno.realPath(path);
    const folder = await Deno.stat(folderOf(real));
    const own = located(real, await Deno.stat(real), folder);
    const note = await Deno.readTextFile(`${own.folder}/${PREFIX}${mark}`);
    const [noted, ...rest] = note.split("\n");
    // Some file systems give a file another inode number on each host, but none gives it another
    // name.
    return own.inode !== "-" && noted === own.inode || rest.join("\n") === own.name;
  } catch {
    return false;
  }
}

/** @returns The path of the file; undefined if it cannot be made in this folder. */
async function writeNote(path: string, mark: string): Promise<string | undefined> {
  try {
    const real = await Deno.realPath(path);
    const { folder, inode, name } = located(
      real,
      await Deno.stat(real),
      await Deno.stat(folderOf(real)),
    );
    const content = `${inode}\n${name}`;
    await removeStale(folder, content);
    const note = `${folder}/${PREFIX}${mark}`;
    await Deno.writeTextFile(note, content, { createNew: true, mode: 0o644 });
    return note;
  } catch {
    return undefined;
  }
}

/**
 * Removes marks that a killed primary has left on the same image, which this process has locked
 * now.
 */
async function removeStale(folder: string, content: string): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    if (!name.startsWith(PREFIX)) continue;
    const path = `${folder}/${name}`;
    try {
      if (await Deno.readTextFile(path) === content) await Deno.remove(path);
    } catch {
      // The file is gone already.
    }
  }
}

const folderOf = (path: string) => path.slice(0, path.lastIndexOf("/")) || "/";

/**
 * @returns The file's inode number in this folder, or "-" if a file of another file system is
 * mounted on it.
 */
function located(
  path: string,
  file: Deno.FileInfo,
  folder: Deno.FileInfo,
): { folder: string; inode: string; name: string } {
  return {
    folder: folderOf(path),
    inode: file.dev === folder.dev ? String(file.ino) : "-",
    name: path.slice(path.lastIndexOf("/") + 1),
  };
}
