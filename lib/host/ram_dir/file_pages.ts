import { TransportError } from "../../errors.ts";
import type { RamBlock } from "../../qemu/wire.ts";
import type { PageStore } from "../../replica/pages/page_store.ts";
import type { SlotPool } from "../../replica/pages/slot_pool.ts";
import { RamFile } from "./ram_file.ts";
import type { RamReserve } from "../../control/receiver_status.ts";
import { Reservation } from "./reservation.ts";
import { decodeLayout, encodeLayout, type Layout } from "./ram_state.ts";

/** Removes a folder with its content, at once or later. */
export type RemoveFolder = (folder: string) => void;

/** A RAM block's file, for a QEMU to map. */
export interface BlockFile {
  readonly name: string;
  readonly path: string;
  readonly lengthBytes: number;
}

/**
 * One image of a {@link RamDir}: the folder of one generation, with a file for each RAM block.
 *
 * ```text
 * FOLDER/layout  the RAM blocks, and the page size
 * FOLDER/BLOCK   one block's pages; its name with everything unusual as %XX
 * ```
 */
export class FilePages implements PageStore {
  readonly writesThrough = true;
  /** The reservation of all its room, if room is to be reserved. */
  readonly #reservation: Reservation | undefined;
  readonly #remove: RemoveFolder;
  isReleased = false;

  private constructor(
    readonly generation: number,
    readonly folder: string,
    readonly blocks: readonly RamBlock[],
    readonly files: readonly RamFile[],
    readonly pool: SlotPool,
    reserve: RamReserve,
    remove: RemoveFolder,
  ) {
    this.#remove = remove;
    if (reserve === "none") return;
    this.#reservation = new Reservation(this.blockFiles);
    this.#reservation.done.then(() => {
      for (const file of files) file.hasRoom = this.#reservation!.isDone;
    }, () => {});
  }

  /**
   * Makes the folder of a new generation, with files of zeros.
   *
   * @param path The folder of all generations.
   * @param reserve Whether to reserve room for the files, which takes a while: {@link reserved}.
   * @param remove Removes the folder when the image is released.
   * @throws {TransportError} if the files cannot be made.
   */
  static create(
    path: string,
    generation: number,
    blocks: readonly RamBlock[],
    pool: SlotPool,
    reserve: RamReserve,
    remove: RemoveFolder,
  ): FilePages {
    const folder = `${path}/${generation}`;
    try {
      Deno.mkdirSync(folder, { recursive: true, mode: 0o700 });
      Deno.writeTextFileSync(
        `${folder}/layout`,
        encodeLayout({ pageBytes: pool.pageBytes, blocks }),
      );
      const files = openFiles(folder, blocks, pool.pageBytes, false, reserve);
      return new FilePages(generation, folder, blocks, files, pool, reserve, remove);
    } catch (error) {
      if (error instanceof TransportError) throw error;
      throw new TransportError(folder, "write", (error as Error).message, {
        party: "replica",
        cause: error,
      });
    }
  }

  /**
   * Opens the files that an earlier process has left. @throws {TransportError} if they cannot be
   * opened.
   */
  static open(
    path: string,
    generation: number,
    blocks: readonly RamBlock[],
    pool: SlotPool,
    reserve: RamReserve,
    remove: RemoveFolder,
  ): FilePages {
    const folder = `${path}/${generation}`;
    const files = openFiles(folder, blocks, pool.pageBytes, true, reserve);
    return new FilePages(generation, folder, blocks, files, pool, reserve, remove);
  }

  /** Whether all room that is to be reserved is reserved. */
  get isReserved(): boolean {
    return this.#reservation?.isDone ?? true;
  }
  /** Bytes of room that are reserved, whatever else is written to the file system. */
  get reservedBytes(): number {
    return this.#reservation?.bytes ?? 0;
  }
  /** Waits until the room is reserved. @throws {TransportError} if there is not enough. */
  async reserved(): Promise<void> {
    await this.#reservation?.done;
  }

  get heldBytes(): number {
    return this.files.reduce((sum, { dataPages }) => sum + dataPages, 0) * this.pool.pageBytes;
  }
  page(block: number, page: number): Uint8Array | undefined {
    return this.files[block].page(page);
  }
  nextPage(block: number, from: number): number {
    return this.files[block].nextPage(from);
  }
  reserve(block: number, pages: Uint32Array): void {
    this.files[block].reserve(pages);
  }
  unreserve(): void {
    for (const file of this.files) file.unreserve();
  }
  put(block: number, page: number, slot: number): void {
    this.files[block].put(page, this.pool.slabOf(slot), this.pool.offsetOf(slot));
    this.pool.release(slot);
  }
  write(block: number, page: number, bytes: Uint8Array): void {
    this.files[block].write(page, bytes);
  }
  clear(block: number, page: number): void {
    this.files[block].clear(page);
  }
  /** Removes the folder. A QEMU that maps its files keeps its memory. */
  release(): void {
    this.isReleased = true;
    this.#reservation?.cancel();
    for (const file of this.files) file.close();
    this.#remove(this.folder);
  }

  /** The files, in the order of the blocks. */
  get blockFiles(): BlockFile[] {
    return this.blocks.map(({ name, lengthBytes }, i) => {
      return { name, lengthBytes, path: this.files[i].path };
    });
  }
}

/** Reads the note in an image's folder. @throws {Error} if kemari did not write it. */
export function readLayout(folder: string): Layout {
  return decodeLayout(Deno.readTextFileSync(`${folder}/layout`));
}

/** The path of a RAM block's file. A block's name may have slashes: `/rom@etc/acpi/tables`. */
export function blockPath(folder: string, block: string): string {
  return `${folder}/${encodeURIComponent(block).replace(/^\./, "%2E")}`;
}

function openFiles(
  folder: string,
  blocks: readonly RamBlock[],
  pageBytes: number,
  keepContent: boolean,
  reserve: RamReserve,
): RamFile[] {
  const files: RamFile[] = [];
  try {
    for (const { name, lengthBytes } of blocks) {
      const path = blockPath(folder, name);
      files.push(RamFile.open(path, lengthBytes, pageBytes, keepContent, reserve === "full"));
    }
    return files;
  } catch (error) {
    for (const file of files) file.close();
    throw error;
  }
}
