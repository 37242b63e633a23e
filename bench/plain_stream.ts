/**
 * A migration stream of any size, as QEMU would send it for a guest with random RAM.
 *
 * All but the pages is real: `machine_state.json` has configuration, block list, device state and
 * description from the recorded stream that it names (zstd, base64). The device state comes from a
 * machine with less RAM; neither a parser nor QEMU can see the difference.
 */
import { randomFillSync } from "node:crypto";
import { zstdDecompressSync } from "node:zlib";
import {
  composeNamedHeader,
  composePrologue,
  composeRamEnd,
  composeVmdescription,
} from "../lib/qemu/compose.ts";
import { DEFAULT_PAGE_BYTES, RAM_SAVE_FLAG, type RamBlock } from "../lib/qemu/wire.ts";
import { UsageError } from "../lib/errors.ts";
import machine from "./machine_state.json" with { type: "json" };

/** The block whose size is chosen; the others are the firmware's and sent as zeros. */
const MAIN_BLOCK = "pc.ram";
/** Pages made and written at a time. */
const BATCH_PAGES = 1024;

/** The contents of a generated stream. */
interface PlainStreamShape {
  readonly blocks: readonly RamBlock[];
  /** Bytes of random pages, which a replica has to hold. */
  readonly randomBytes: number;
}

/**
 * The blocks of a machine with `ramBytes` of RAM. @throws {UsageError} if this is not a whole
 * number of pages.
 */
export function plainStreamShape(ramBytes: number): PlainStreamShape {
  if (ramBytes <= 0 || ramBytes % DEFAULT_PAGE_BYTES !== 0) {
    throw new UsageError(`${ramBytes} bytes of RAM are no whole number of pages`);
  }
  const blocks = machine.blocks.map(({ name, lengthBytes }) => ({
    name,
    lengthBytes: name === MAIN_BLOCK ? ramBytes : lengthBytes,
  }));
  return { blocks, randomBytes: ramBytes };
}

/**
 * Makes the stream, piece by piece.
 *
 * @yields Pieces of at most some MiB. The memory is used again for the next piece.
 */
export function* plainStream(shape: PlainStreamShape): Generator<Uint8Array> {
  yield composePrologue(unpack(machine.configuration), shape.blocks);
  for (const block of shape.blocks) {
    if (block.name === MAIN_BLOCK) yield* randomPages(block);
    else yield zeroPages(block);
  }
  yield composeRamEnd();
  yield unpack(machine.device);
  yield composeVmdescription(unpack(machine.vmdescription));
}

/** Writes the stream into a file. @returns Its length in bytes. */
export async function writePlainStream(
  path: string,
  shape: PlainStreamShape,
  signal: AbortSignal,
): Promise<number> {
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  let written = 0;
  for (const piece of plainStream(shape)) {
    // Signals are only handled between two pieces.
    await new Promise((resolve) => setImmediate(resolve));
    signal.throwIfAborted();
    for (let at = 0; at < piece.length;) at += file.writeSync(piece.subarray(at));
    written += piece.length;
  }
  return written;
}

function* randomPages(block: RamBlock): Generator<Uint8Array> {
  const pages = block.lengthBytes / DEFAULT_PAGE_BYTES;
  const random = new Uint8Array(BATCH_PAGES * DEFAULT_PAGE_BYTES);
  const piece = new Uint8Array(BATCH_PAGES * (DEFAULT_PAGE_BYTES + 8 + 1 + block.name.length));
  for (let first = 0; first < pages; first += BATCH_PAGES) {
    const count = Math.min(BATCH_PAGES, pages - first);
    randomFillSync(random, 0, count * DEFAULT_PAGE_BYTES);
    let used = 0;
    for (let i = 0; i < count; i++) {
      const header = recordHeader(block, first + i, RAM_SAVE_FLAG.PAGE);
      piece.set(header, used);
      used += header.length;
      const at = i * DEFAULT_PAGE_BYTES;
      piece.set(random.subarray(at, at + DEFAULT_PAGE_BYTES), used);
      used += DEFAULT_PAGE_BYTES;
    }
    yield piece.subarray(0, used);
  }
}

function zeroPages(block: RamBlock): Uint8Array {
  const records: number[] = [];
  for (let page = 0; page < block.lengthBytes / DEFAULT_PAGE_BYTES; page++) {
    records.push(...recordHeader(block, page, RAM_SAVE_FLAG.ZERO), 0);
  }
  return Uint8Array.from(records);
}

/** QEMU names a block once, and says CONTINUE from then on. */
function recordHeader(block: RamBlock, page: number, flag: number): Uint8Array {
  const offset = page * DEFAULT_PAGE_BYTES;
  if (page === 0) return composeNamedHeader(block.name, offset, flag);
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, Math.floor(offset / 0x1_0000_0000));
  view.setUint32(4, (offset % 0x1_0000_0000) | flag | RAM_SAVE_FLAG.CONTINUE);
  return bytes;
}

function unpack(base64: string): Uint8Array {
  return new Uint8Array(zstdDecompressSync(Uint8Array.fromBase64(base64)));
}
