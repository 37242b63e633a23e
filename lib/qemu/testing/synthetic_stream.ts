/**
 * For tests: small migration streams of a made-up machine, and a record of what a parser found.
 *
 * The machine has pages of 1 KiB, so that its stream can be cut at every byte.
 */
import { crc32 } from "node:zlib";
import type { RamRecord } from "../ram_record.ts";
import type { StreamEvent, StreamVisitor } from "../stream_events.ts";
import { COLO_MESSAGE, COMMAND, RAM_SAVE_FLAG, SECTION } from "../wire.ts";

/** Bytes, or what {@link concat} makes bytes of. */
export type Part = number | string | Uint8Array | readonly Part[];

/** Joins parts: numbers are single bytes, strings are ASCII. */
export function concat(...parts: readonly Part[]): Uint8Array {
  const pieces = parts.map((part): Uint8Array => {
    if (typeof part === "number") return Uint8Array.of(part);
    if (typeof part === "string") return new TextEncoder().encode(part);
    return part instanceof Uint8Array ? part : concat(...part);
  });
  const joined = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

export function u16(value: number): Uint8Array {
  return Uint8Array.of(value >> 8, value);
}

export function u32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

export function u64(value: number | bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(value));
  return bytes;
}

/** `u8` length and the text. */
export function name(text: string): Uint8Array {
  return concat(text.length, text);
}

export const PAGE_BYTES = 1024;
export const RAM_ID = 2;

/** The machine's RAM: 8 pages and 3 pages. */
export const BLOCKS: readonly (readonly [string, number])[] = [
  ["pc.ram", 8 * PAGE_BYTES],
  ["rom", 3 * PAGE_BYTES],
];

export const HEADER = concat("QEVM", u32(3));

export function configuration(machine = "toy", bits = 10, ...more: readonly Part[]): Uint8Array {
  return concat(
    [SECTION.QEMU_VM_CONFIGURATION, u32(machine.length), machine],
    [SECTION.QEMU_VM_SUBSECTION, name("configuration/target-page-bits"), u32(1), u32(bits)],
    more,
  );
}

export function capabilities(...names: readonly string[]): Uint8Array {
  return concat(
    [SECTION.QEMU_VM_SUBSECTION, name("configuration/capabilities"), u32(1), u32(names.length)],
    names.map(name),
  );
}

export function command(code: number, ...data: readonly Part[]): Uint8Array {
  const body = concat(...data);
  return concat(SECTION.QEMU_VM_COMMAND, u16(code), u16(body.length), body);
}

export const PING = command(COMMAND.MIG_CMD_PING, u32(7));
export const OPEN_RETURN_PATH = command(COMMAND.MIG_CMD_OPEN_RETURN_PATH);
export const SWITCHOVER = command(COMMAND.MIG_CMD_SWITCHOVER_START);

/** A RAM record's `u64`. */
export function record(offset: number | bigint, flags: number): Uint8Array {
  return u64(BigInt(offset) + BigInt(flags));
}

export const EOS = record(0, RAM_SAVE_FLAG.EOS);

export function footer(id = RAM_ID): Uint8Array {
  return concat(SECTION.QEMU_VM_SECTION_FOOTER, u32(id));
}

export function memSize(blocks: readonly (readonly [string, number])[] = BLOCKS): Uint8Array {
  const total = blocks.reduce((sum, [, lengthBytes]) => sum + lengthBytes, 0);
  return concat(
    record(total, RAM_SAVE_FLAG.MEM_SIZE),
    blocks.map(([block, lengthBytes]) => [name(block), u64(lengthBytes)]),
  );
}

/** A `ram` section of these records; EOS and the footer are added. */
export function ramSection(
  type: "START" | "PART" | "END",
  ...records: readonly Part[]
): Uint8Array {
  const opening = type === "START"
    ? [SECTION.QEMU_VM_SECTION_START, u32(RAM_ID), name("ram"), u32(0), u32(4)]
    : [type === "PART" ? SECTION.QEMU_VM_SECTION_PART : SECTION.QEMU_VM_SECTION_END, u32(RAM_ID)];
  return concat(opening, records, EOS, footer());
}

/** A page whose bytes differ from those of other pages. */
export function pageOf(seed: number): Uint8Array {
  return new Uint8Array(PAGE_BYTES).map((_, i) => i * 7 + seed * 31 + 1);
}

/** A record of a whole page; names its block unless `block` is left out. */
export function page(number: number, seed: number, block?: string): Uint8Array {
  const flags = RAM_SAVE_FLAG.PAGE | (block === undefined ? RAM_SAVE_FLAG.CONTINUE : 0);
  return concat(
    record(number * PAGE_BYTES, flags),
    block === undefined ? [] : name(block),
    pageOf(seed),
  );
}

export function zero(number: number, block?: string, fill = 0): Uint8Array {
  const flags = RAM_SAVE_FLAG.ZERO | (block === undefined ? RAM_SAVE_FLAG.CONTINUE : 0);
  return concat(record(number * PAGE_BYTES, flags), block === undefined ? [] : name(block), fill);
}

/** An XBZRLE record of runs `[unchanged bytes, new bytes…]`. */
export function xbzrle(number: number, difference: Uint8Array, block?: string): Uint8Array {
  const flags = RAM_SAVE_FLAG.XBZRLE | (block === undefined ? RAM_SAVE_FLAG.CONTINUE : 0);
  return concat(
    record(number * PAGE_BYTES, flags),
    block === undefined ? [] : name(block),
    [1, u16(difference.length), difference],
  );
}

/** Device state of one device with one field, EOF included. */
export function deviceState(value: number): Uint8Array {
  return concat(
    [SECTION.QEMU_VM_SECTION_FULL, u32(5), name("dev"), u32(0), u32(1), u32(value), footer(5)],
    SECTION.QEMU_VM_EOF,
  );
}

export const VMDESC_JSON = new TextEncoder().encode(JSON.stringify({
  page_size: PAGE_BYTES,
  devices: [{
    name: "dev",
    instance_id: 0,
    vmsd_name: "dev",
    version: 1,
    fields: [{ name: "value", type: "uint32", size: 4 }],
  }],
}));

export const VMDESC = concat(SECTION.QEMU_VM_VMDESCRIPTION, u32(VMDESC_JSON.length), VMDESC_JSON);

/** Bytes with every kind of record: two passes, commands, all pages mentioned. */
export function fullStream(seed = 1, beforeRam: readonly Part[] = []): Uint8Array {
  return concat(
    HEADER,
    configuration(),
    beforeRam,
    ramSection("START", memSize()),
    ramSection(
      "PART",
      page(0, seed, "pc.ram"),
      [1, 2, 3, 4, 5, 6].map((n) => zero(n)),
      page(7, seed + 1),
      page(0, seed + 2, "rom"),
    ),
    SWITCHOVER,
    ramSection(
      "END",
      page(1, seed + 3, "pc.ram"),
      xbzrle(1, Uint8Array.of(2, 3, 0xaa, 0xbb, 0xcc, 0x80, 0x02, 1, 0xdd)),
      zero(3, undefined, seed),
    ),
    deviceState(seed),
    VMDESC,
  );
}

export const REQUEST = u32(COLO_MESSAGE.CHECKPOINT_REQUEST);
export const SEND = u32(COLO_MESSAGE.VMSTATE_SEND);

/** The rest of a checkpoint behind VMSTATE_SEND: some pages, VMSTATE_SIZE and a device state. */
export function checkpointBody(seed: number, ...records: readonly Part[]): Uint8Array {
  const state = deviceState(seed);
  return concat(
    SWITCHOVER,
    ramSection(
      "END",
      records.length > 0 ? records : [page(2, seed, "pc.ram"), zero(7), page(4, seed + 1)],
    ),
    SECTION.QEMU_VM_EOF,
    [u32(COLO_MESSAGE.VMSTATE_SIZE), u64(state.length), state],
  );
}

export function checkpoint(seed: number, ...records: readonly Part[]): Uint8Array {
  return concat(REQUEST, SEND, checkpointBody(seed, ...records));
}

/** Writes down everything a parser finds, so that two parsings can be compared. */
export class FoundLog implements StreamVisitor {
  readonly lines: string[] = [];
  readonly events: StreamEvent[] = [];
  event(event: StreamEvent): void {
    this.events.push(event);
    this.lines.push(JSON.stringify(event, (_key, value) => {
      if (value instanceof Uint8Array) return `${value.length} bytes, ${crc32(value)}`;
      return value;
    }));
  }

  page(record: RamRecord): void {
    const { kind, block, pageOffset, named, offset, endOffset, bytes, at, lengthBytes } = record;
    const content = crc32(bytes.subarray(at, at + lengthBytes));
    this.lines.push(
      `${kind} ${block} ${pageOffset} ${named} ${offset} ${endOffset} ${lengthBytes} ${content}`,
    );
  }

  mark(flag: number, offset: number): void {
    this.lines.push(`mark ${flag} ${offset}`);
  }
}
