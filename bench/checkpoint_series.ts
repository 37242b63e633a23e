/**
 * Series of COLO checkpoints of a synthetic guest, for measuring without a QEMU.
 *
 * All but the pages is from a real machine, see `plain_stream.ts`; some bytes of its device state
 * change each time. The pages of a checkpoint and the changes in them are modelled on three kinds
 * of guest.
 */
import { randomFillSync } from "node:crypto";
import { type KnownSection, sketchDeviceState } from "../lib/qemu/devices/device_sketch.ts";
import type { StreamVisitor } from "../lib/qemu/stream_events.ts";
import { StreamParser } from "../lib/qemu/stream_parser.ts";
import { COLO_MESSAGE, RAM_SAVE_FLAG, SECTION } from "../lib/qemu/wire.ts";
import { encodeTapEvent } from "../lib/replica/events/tap_events.ts";
import { plainStream, plainStreamShape } from "./plain_stream.ts";

const RAM_BYTES = 16 * 2 ** 20;
/** Bytes of device state that change from one checkpoint to the next. */
const VALUES = 200;
const MAIN_BLOCK = "pc.ram";
const PAGE_BYTES = 4096;
const RECORD_PAGES = 16;

/** The tap that the guests write to. */
export const DISK = "disk0";

/** The kinds of guest. */
export const GUESTS = ["files", "requests", "random"] as const;
type GuestKind = typeof GUESTS[number];

/** The first pass, and the checkpoints that follow it, each from CHECKPOINT_REQUEST on. */
export interface CheckpointSeries {
  readonly first: Uint8Array;
  readonly checkpoints: readonly Uint8Array[];
  /** The EVENT payloads of each, in pieces. */
  readonly events: readonly (readonly Uint8Array[][])[];
  /** Pages in all checkpoints together. */
  readonly pages: number;
}

interface Machine {
  readonly first: Uint8Array;
  readonly ramSectionId: number;
  readonly deviceState: Uint8Array;
  /** Where a checkpoint's device state differs from the one before. */
  readonly values: readonly number[];
}

/** Makes a series. The same arguments make the same pages, except for the random pages. */
export function checkpointSeries(kind: GuestKind, count: number): CheckpointSeries {
  const machine = makeMachine();
  const guest = new MadeUpGuest(kind, RAM_BYTES / PAGE_BYTES);
  const checkpoints: Uint8Array[] = [];
  const events: Uint8Array[][][] = [];
  let pages = 0;
  for (let i = 0; i < count; i++) {
    const dirty = guest.step();
    pages += dirty.size;
    const state = machine.deviceState.slice();
    for (const at of machine.values) if ((i + at) % 3 === 0) state[at] ^= 0xff;
    checkpoints.push(composeCheckpoint(machine.ramSectionId, dirty, state));
    events.push(guest.takeWrites().map((write) => encodeTapEvent({ kind: "write", ...write })));
  }
  return { first: machine.first, checkpoints, events, pages };
}

/**
 * - `files`: a file is written again and again, 64 KiB each time, through the page cache to a
 *   protected disk, with iozone's data: the same random record each time, with a mark in each page;
 *   and 60 pages of the kernel change a little.
 * - `requests`: 120 pages of a working set change in a few places each, 16 stay unchanged, 8 get
 *   text.
 * - `random`: 64 pages get incompressible content.
 */
class MadeUpGuest {
  readonly #kind: GuestKind;
  readonly #pages: number;
  readonly #record = randomFillSync(new Uint8Array(RECORD_PAGES * PAGE_BYTES));
  #writes: { tap: string; offset: number; data: Uint8Array }[] = [];
  readonly #content = new Map<number, Uint8Array<ArrayBuffer>>();
  #round = 0;
  #random = 1;

  constructor(kind: GuestKind, pages: number) {
    this.#kind = kind;
    this.#pages = pages;
  }

  /**
   * Runs the guest to its next checkpoint. @returns The dirty pages in the order of their numbers.
   */
  step(): Map<number, Uint8Array> {
    this.#round++;
    const dirty = new Set<number>();
    switch (this.#kind) {
      case "files":
        for (let i = 0; i < RECORD_PAGES; i++) {
          const page = 1024 + (this.#round * RECORD_PAGES + i) % 2048;
          const record = this.#record.subarray(i * PAGE_BYTES, (i + 1) * PAGE_BYTES);
          this.#page(page).set(record);
          this.#page(page)[0] = this.#round;
          dirty.add(page);
        }
        this.#writes.push({
          tap: DISK,
          offset: this.#round % 128 * this.#record.length,
          data: this.#record.slice(),
        });
        for (let i = 0; i < 60; i++) dirty.add(this.#change(64 + i * 3, 6, 12));
        break;
      case "requests":
        for (let i = 0; i < 120; i++) dirty.add(this.#change(100 + i * 7, 8, 16));
        for (let i = 0; i < 16; i++) dirty.add(100 + i * 7 + 1);
        for (let i = 0; i < 8; i++) dirty.add(this.#write(3000 + i + this.#round % 64 * 8));
        break;
      case "random":
        for (let i = 0; i < 64; i++) {
          const page = 512 + (this.#round * 64 + i) % 2048;
          randomFillSync(this.#page(page));
          dirty.add(page);
        }
    }
    const sorted = [...dirty].filter((page) => page < this.#pages).sort((a, b) => a - b);
    return new Map(sorted.map((page) => [page, this.#page(page).slice()]));
  }

  /** The guest's disk writes since the last call. */
  takeWrites(): { tap: string; offset: number; data: Uint8Array }[] {
    return this.#writes.splice(0);
  }

  #page(page: number): Uint8Array<ArrayBuffer> {
    let content = this.#content.get(page);
    if (content !== undefined) return content;
    content = new Uint8Array(PAGE_BYTES);
    // A page of a running program: words that resemble pointers and counters.
    const words = new Uint32Array(content.buffer);
    for (let i = 0; i < words.length; i++) words[i] = i % 2 ? 0xffff8880 : this.#next() >>> 12;
    this.#content.set(page, content);
    return content;
  }

  /** Changes some runs of bytes in a page. */
  #change(page: number, runs: number, runBytes: number): number {
    const content = this.#page(page);
    for (let i = 0; i < runs; i++) {
      const at = this.#next() % (PAGE_BYTES - runBytes);
      for (let k = 0; k < runBytes; k++) content[at + k] = this.#next();
    }
    return page;
  }

  /** Fills a page with lines of a log. */
  #write(page: number): number {
    const line = `GET /item/${this.#next() % 1000}?user=${this.#next() % 100} 200 OK\n`;
    const text = new TextEncoder().encode(line);
    const content = this.#page(page);
    for (let at = 0; at < PAGE_BYTES; at++) content[at] = text[at % text.length];
    return page;
  }

  /** xorshift32. */
  #next(): number {
    this.#random ^= this.#random << 13;
    this.#random ^= this.#random >>> 17;
    this.#random ^= this.#random << 5;
    return this.#random >>> 0;
  }
}

function makeMachine(): Machine {
  const pieces = Array.from(plainStream(plainStreamShape(RAM_BYTES)), (piece) => piece.slice());
  const first = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    first.set(piece, at);
    at += piece.length;
  }
  const found = { ramSectionId: 0, deviceState: new Uint8Array(0) as Uint8Array };
  const nothing = () => {};
  const visitor: StreamVisitor = {
    event(event) {
      if (event.kind === "ram-section") found.ramSectionId = event.sectionId;
      if (event.kind === "device-state") found.deviceState = event.state.slice();
    },
    page: nothing,
    mark: nothing,
  };
  const parser = new StreamParser(visitor);
  parser.parse(first, 0, first.length);
  const { sections } = parser.checkpointContext;
  return { first, ...found, values: valuesIn(found.deviceState, sections) };
}

/** Places in the device state whose bytes do not determine its structure: they may be inverted. */
function valuesIn(state: Uint8Array, sections: readonly KnownSection[]): number[] {
  const values: number[] = [];
  for (let i = 1; values.length < VALUES && i < 10 * VALUES; i++) {
    const at = (i * 7919) % state.length;
    const changed = state.slice();
    changed[at] ^= 0xff;
    try {
      if (sketchDeviceState(changed, sections, 0).isComplete) values.push(at);
    } catch {
      // The byte was part of a name or a length.
    }
  }
  return values;
}

function composeCheckpoint(
  ramSectionId: number,
  pages: ReadonlyMap<number, Uint8Array>,
  state: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(64 + pages.size * (8 + PAGE_BYTES) + 32 + state.length);
  const view = new DataView(bytes.buffer);
  let at = 0;
  const u8 = (value: number) => void (bytes[at++] = value);
  const u32 = (value: number) => {
    view.setUint32(at, value);
    at += 4;
  };
  const u64 = (value: number) => {
    u32(Math.floor(value / 0x1_0000_0000));
    u32(value % 0x1_0000_0000);
  };
  u32(COLO_MESSAGE.CHECKPOINT_REQUEST);
  u32(COLO_MESSAGE.VMSTATE_SEND);
  u8(SECTION.QEMU_VM_SECTION_END);
  u32(ramSectionId);
  let first = true;
  for (const [page, content] of pages) {
    u64(page * PAGE_BYTES + RAM_SAVE_FLAG.PAGE + (first ? 0 : RAM_SAVE_FLAG.CONTINUE));
    if (first) {
      u8(MAIN_BLOCK.length);
      for (const letter of MAIN_BLOCK) u8(letter.charCodeAt(0));
    }
    first = false;
    bytes.set(content, at);
    at += PAGE_BYTES;
  }
  u64(RAM_SAVE_FLAG.EOS);
  u8(SECTION.QEMU_VM_SECTION_FOOTER);
  u32(ramSectionId);
  u8(SECTION.QEMU_VM_EOF);
  u32(COLO_MESSAGE.VMSTATE_SIZE);
  u64(state.length);
  bytes.set(state, at);
  return bytes.subarray(0, at + state.length);
}
