/** Composes a replica's stream for QEMU: all of it, or without the RAM that QEMU has already. */
import {
  composeNamedHeader,
  composePrologue,
  composeRamEnd,
  composeVmdescription,
} from "../../qemu/compose.ts";
import { describeBlindly, describeCheckpoint } from "../../qemu/devices/describe_checkpoint.ts";
import { RAM_SAVE_FLAG, type RamBlock } from "../../qemu/wire.ts";
import type { MachineShape } from "./machine_shape.ts";
import type { MachineRecord, PageStore } from "../pages/page_store.ts";
import type { RamImage } from "../pages/ram_image.ts";

/** A state for a QEMU to load: the replica's, or a transaction's before its commit. */
export interface LoadableState {
  readonly shape: MachineShape;
  /** The store of its committed pages. */
  readonly store: PageStore;
  /**
   * The state as a stream.
   *
   * @param shared The blocks whose committed RAM the loading QEMU has already, by name, with the
   *   address of each in the region that holds it: of these only staged pages are in the stream,
   *   which then says so. By default the stream has all pages.
   * @yields Views into the replica, which must not change before they are written.
   */
  compose(shared?: ReadonlyMap<string, number>): Generator<Uint8Array>;
}

/**
 * Composes the stream.
 *
 * @param shared The blocks whose pages are left out, with the address of each in the region that
 *   holds it; the stream is then one for `x-ignore-shared`.
 * @yields Views into the image and the machine, which must not change before they are written.
 */
export function* composeReplica(
  image: RamImage,
  machine: MachineRecord,
  shared?: ReadonlyMap<string, number>,
): Generator<Uint8Array> {
  yield composePrologue(machine.configuration, image.blocks, shared);
  for (let block = 0; block < image.blocks.length; block++) {
    const { name, lengthBytes } = image.blocks[block];
    if (shared?.has(name)) continue;
    const pages = lengthBytes / image.pageBytes;
    let headers = new RecordHeaders();
    let named = false;
    for (let page = 0; page < pages; page++) {
      const content = image.page(block, page);
      const flag = content === undefined ? RAM_SAVE_FLAG.ZERO : RAM_SAVE_FLAG.PAGE;
      if (!named) {
        yield composeNamedHeader(name, page * image.pageBytes, flag);
        named = true;
        yield content ?? ZERO_FILL;
        continue;
      }
      if (headers.full) headers = new RecordHeaders();
      yield headers.next(page * image.pageBytes, flag | RAM_SAVE_FLAG.CONTINUE);
      yield content ?? ZERO_FILL;
    }
  }
  yield composeRamEnd();
  yield machine.device;
  const description = describe(machine, image.pageBytes, shared !== undefined);
  if (description !== undefined) yield composeVmdescription(description);
}

/**
 * Composes the stream of a transaction before its commit. A QEMU that has the committed pages of
 * some blocks already gets only those pages of them that the transaction would change.
 *
 * @param shared As {@link composeReplica}'s.
 * @yields As {@link composeReplica}.
 */
export function* composeStaged(
  image: RamImage,
  machine: MachineRecord,
  shared?: ReadonlyMap<string, number>,
): Generator<Uint8Array> {
  yield composePrologue(machine.configuration, image.blocks, shared);
  for (let block = 0; block < image.blocks.length; block++) {
    const { name, lengthBytes } = image.blocks[block];
    const isShared = shared?.has(name) ?? false;
    const pages = lengthBytes / image.pageBytes;
    for (let page = 0; page < pages; page++) {
      const staged = image.stagedPage(block, page);
      if (staged === "none" && isShared) continue;
      const content = staged === "none" ? image.page(block, page) : staged;
      const flag = content === undefined ? RAM_SAVE_FLAG.ZERO : RAM_SAVE_FLAG.PAGE;
      yield composeNamedHeader(name, page * image.pageBytes, flag);
      yield content ?? ZERO_FILL;
    }
  }
  yield composeRamEnd();
  yield machine.device;
  const description = describe(machine, image.pageBytes, shared !== undefined);
  if (description !== undefined) yield composeVmdescription(description);
}

/**
 * The description behind the state. QEMU skips it; other readers of the stream need one that fits
 * this state, which may be a checkpoint's or of a machine that describes nothing.
 *
 * @param isHurried Whether only a QEMU reads the stream, and is waited for.
 * @returns `undefined` if there can be no description: then the stream ends with the state.
 */
function describe(
  { device, vmdescription }: MachineRecord,
  pageBytes: number,
  isHurried: boolean,
): Uint8Array | undefined {
  if (vmdescription.length === 0) return describeBlindly(device, pageBytes);
  return isHurried ? vmdescription : describeCheckpoint(vmdescription, device);
}

/** Composes a stream without any RAM, up to the description, to be parsed. */
export function* composeWithoutPages(
  machine: MachineRecord & { readonly blocks: readonly RamBlock[] },
): Generator<Uint8Array> {
  yield composePrologue(machine.configuration, machine.blocks);
  yield composeRamEnd();
  yield machine.device;
}

const ZERO_FILL = new Uint8Array(1);

/** Record headers of 8 bytes each, packed so that a million pages do not make a million buffers. */
class RecordHeaders {
  readonly #bytes = new Uint8Array(8 * 4096);
  readonly #view = new DataView(this.#bytes.buffer);
  #at = 0;

  get full(): boolean {
    return this.#at === this.#bytes.length;
  }

  next(offset: number, flags: number): Uint8Array {
    this.#view.setUint32(this.#at, Math.floor(offset / 0x1_0000_0000));
    this.#view.setUint32(this.#at + 4, (offset % 0x1_0000_0000) | flags);
    this.#at += 8;
    return this.#bytes.subarray(this.#at - 8, this.#at);
  }
}
