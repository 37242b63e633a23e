/**
 * The findings of `kemari inspect` in a migration file: the parser's events as a flat list of
 * sections, each with its place, passed on as they come, so that a file of any size takes bounded
 * memory.
 */
import type { DeviceField } from "./devices/device_fields.ts";
import { sketchDeviceState } from "./devices/device_sketch.ts";
import { commandBytes, type DeviceSection, walkIfFits } from "./devices/device_state.ts";
import {
  type BlockCensus,
  emptyTally,
  PageCensus,
  type PageForm,
  pagesSent,
  type PageTally,
} from "./page_census.ts";
import type { RamRecord } from "./ram_record.ts";
import type { StreamEvent, StreamVisitor } from "./stream_events.ts";
import { parseVmdesc, type Vmdesc } from "./devices/vmdesc.ts";
import { COLO_MESSAGE, COMMAND, nameOf, type RamBlock, SECTION } from "./wire.ts";

/** A place in the file, in bytes. */
interface Placed {
  readonly offset: number;
  readonly sizeBytes: number;
  /** Number of the COLO checkpoint that it belongs to, from 1; absent outside of one. */
  readonly checkpoint?: number;
}

/** A `ram` section. */
export interface RamSection extends Placed, Readonly<PageTally> {
  readonly kind: "ram";
  /** `null` for the section in which the stream breaks off. */
  readonly part: "START" | "PART" | "END" | null;
  readonly sectionId: number | null;
  /** Bytes of XBZRLE differences, without their headers. */
  readonly xbzrleBytes: number;
  /** HOOK and MULTIFD_FLUSH records. */
  readonly marks: number;
  /** The list of blocks, if the section has it. */
  readonly blocks?: readonly RamBlock[];
}

/** A device's section. */
interface DeviceFinding extends Placed {
  readonly kind: "device";
  readonly name: string;
  readonly instance: number;
  readonly version: number;
  readonly sectionId: number;
  fields(): Iterable<DeviceField>;
}

/** A finding, in the order of the bytes. */
export type SectionFinding =
  | Placed & { readonly kind: "header"; readonly version: number }
  | Placed & {
    readonly kind: "configuration";
    readonly machine: string;
    readonly targetPageBits: number | null;
    readonly capabilities: readonly string[];
  }
  | Placed & { readonly kind: "command"; readonly name: string; readonly dataHex: string }
  | RamSection
  | DeviceFinding
  | Placed & {
    /** A checkpoint's device state that the first pass's description does not fit. */
    readonly kind: "device-state";
    readonly devices: readonly string[];
    /** Whether `devices` is complete. */
    readonly complete: boolean;
  }
  | Placed & { readonly kind: "eof" }
  | Placed & { readonly kind: "vmdescription"; readonly devices: number }
  | Placed & {
    readonly kind: "colo";
    readonly message: string;
    /** The size that VMSTATE_SIZE announces. */
    readonly stateBytes: number | null;
  }
  | Placed & {
    /** The place where the stream breaks off, other than in RAM. */
    readonly kind: "unfinished";
    readonly place: string;
  };

/** One stream of the file, summed up. */
export interface StreamSummary {
  /** From 1. */
  readonly number: number;
  readonly kind: "plain" | "colo";
  readonly offset: number;
  /** One past its last byte that was understood. */
  readonly endOffset: number;
  /** False if it breaks off, or is at fault. */
  readonly complete: boolean;
  /** Complete ones. */
  readonly checkpoints: number;
  readonly pageBytes: number;
  readonly blocks: readonly BlockCensus[];
}

/** Takes the findings, in order. */
export interface FindingSink {
  beginStream(number: number, offset: number): void;
  section(finding: SectionFinding): void;
  endStream(summary: StreamSummary): void;
}

/** The part of the parser that the inspector uses. */
interface ParserView {
  readonly pageBytes: number;
  readonly streamOffset: number;
  readonly place: string;
}

const RAM_PARTS = {
  [SECTION.QEMU_VM_SECTION_START]: "START",
  [SECTION.QEMU_VM_SECTION_PART]: "PART",
  [SECTION.QEMU_VM_SECTION_END]: "END",
} as const;

/** Turns parser events into findings. Call {@link end} once the parser has ended or failed. */
export class StreamInspector implements StreamVisitor {
  readonly #sink: FindingSink;
  readonly #parser: () => ParserView;
  #number = 0;
  #isOpen = false;
  #offset = 0;
  /** One past the last byte of the findings so far. */
  #endOffset = 0;
  #isPassComplete = false;
  #isColo = false;
  /** The checkpoint under way, or 0. */
  #checkpoint = 0;
  #checkpoints = 0;
  #allCheckpoints = 0;
  #vmdesc: Vmdesc | undefined;
  #census = new PageCensus([], 1);
  #tally = emptyTally();
  #xbzrleBytes = 0;
  #marks = 0;
  #announced: readonly RamBlock[] | undefined;

  /** @param parser Called during and after parsing, never before. */
  constructor(sink: FindingSink, parser: () => ParserView) {
    this.#sink = sink;
    this.#parser = parser;
  }

  /** How many streams have begun so far. */
  get streams(): number {
    return this.#number;
  }

  /** How many checkpoints are complete so far, in all streams. */
  get checkpoints(): number {
    return this.#allCheckpoints;
  }

  page({ kind, block, pageOffset, bytes, at, lengthBytes }: RamRecord): void {
    switch (kind) {
      case "page":
        return this.#count(block, pageOffset, "pages");
      case "fill":
        return this.#count(block, pageOffset, bytes[at] === 0 ? "zeroPages" : "fillPages");
      case "xbzrle":
        this.#xbzrleBytes += lengthBytes;
        return this.#count(block, pageOffset, "xbzrlePages");
    }
  }

  mark(): void {
    this.#marks++;
  }

  event(event: StreamEvent): void {
    const { offset, endOffset } = event;
    switch (event.kind) {
      case "header":
        this.#close(true);
        this.#open(offset);
        return this.#add({ kind: "header", version: event.version, ...this.#at(event) });
      case "configuration": {
        const { machine, targetPageBits, capabilities } = event.configuration;
        return this.#add({
          kind: "configuration",
          machine,
          targetPageBits: targetPageBits ?? null,
          capabilities,
          ...this.#at(event),
        });
      }
      case "command":
        return this.#command(event.command, event.data, offset, endOffset);
      case "ram-blocks":
        this.#announced = event.blocks;
        this.#census = new PageCensus(event.blocks, this.#parser().pageBytes);
        return;
      case "ram-section": {
        const part = RAM_PARTS[event.type as keyof typeof RAM_PARTS];
        return this.#ram(part, event.sectionId, offset, endOffset);
      }
      case "checkpoint-ram-end":
        return this.#add({ kind: "eof", ...this.#at(event) });
      case "device-state":
        return this.#devices(event.state, event.sections, offset);
      case "vmdescription":
        this.#vmdesc = parseVmdesc(event.json, endOffset - event.json.length);
        return this.#add({
          kind: "vmdescription",
          devices: this.#vmdesc.devices.length,
          ...this.#at(event),
        });
      case "stream-complete":
        this.#isPassComplete = true;
        return;
      case "colo":
        this.#isColo = true;
        if (event.message === COLO_MESSAGE.CHECKPOINT_REQUEST) {
          this.#checkpoint = this.#checkpoints + 1;
        }
        return this.#add({
          kind: "colo",
          message: nameOf(COLO_MESSAGE, event.message),
          stateBytes: event.sizeBytes ?? null,
          ...this.#at(event),
        });
      case "checkpoint":
        this.#checkpointState(event.state, offset);
        this.#checkpoints = this.#checkpoint;
        this.#allCheckpoints++;
        this.#checkpoint = 0;
    }
  }

  /**
   * Sums up the last stream.
   *
   * @param endOffset The end of what could be parsed: the file's length, or the fault's offset.
   */
  end(endOffset: number): void {
    if (this.#isOpen && endOffset > this.#endOffset) this.#unfinished(endOffset);
    this.#close(false);
  }

  #open(offset: number): void {
    this.#isOpen = true;
    this.#number++;
    this.#offset = offset;
    this.#isPassComplete = false;
    this.#isColo = false;
    this.#checkpoints = 0;
    this.#vmdesc = undefined;
    this.#census = new PageCensus([], 1);
    this.#sink.beginStream(this.#number, offset);
  }

  #close(isFollowed: boolean): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#sink.endStream({
      number: this.#number,
      kind: this.#isColo ? "colo" : "plain",
      offset: this.#offset,
      endOffset: this.#endOffset,
      complete: this.#isPassComplete && (isFollowed || this.#checkpoint === 0),
      checkpoints: this.#checkpoints,
      pageBytes: this.#parser().pageBytes,
      blocks: this.#census.blocks(),
    });
  }

  #at({ offset, endOffset }: { readonly offset: number; readonly endOffset: number }): Placed {
    const place = { offset, sizeBytes: endOffset - offset };
    return this.#checkpoint === 0 ? place : { ...place, checkpoint: this.#checkpoint };
  }

  #add(finding: SectionFinding): void {
    this.#endOffset = finding.offset + finding.sizeBytes;
    this.#sink.section(finding);
  }

  #count(block: number, offset: number, form: PageForm): void {
    this.#tally[form]++;
    this.#census.count(block, offset, form);
  }

  #command(command: number, data: Uint8Array, offset: number, endOffset: number): void {
    const dataHex = Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
    const name = nameOf(COMMAND, command);
    this.#add({ kind: "command", name, dataHex, ...this.#at({ offset, endOffset }) });
  }

  #ram(
    part: RamSection["part"],
    sectionId: number | null,
    offset: number,
    endOffset: number,
  ): void {
    this.#add({
      kind: "ram",
      part,
      sectionId,
      ...this.#at({ offset, endOffset }),
      ...this.#tally,
      xbzrleBytes: this.#xbzrleBytes,
      marks: this.#marks,
      ...(this.#announced === undefined ? {} : { blocks: this.#announced }),
    });
    this.#tally = emptyTally();
    this.#xbzrleBytes = 0;
    this.#marks = 0;
    this.#announced = undefined;
  }

  /** Sections split by a description; between them are COMMANDs. */
  #devices(state: Uint8Array, sections: readonly DeviceSection[], offset: number): void {
    let at = offset;
    const end = offset + state.length - 1;
    const commandsUpTo = (to: number) => {
      while (at < to) {
        const position = at - offset;
        const next = at + commandBytes(state, position, offset);
        const data = state.subarray(position + 5, next - offset);
        this.#command(state[position + 1] * 256 + state[position + 2], data, at, next);
        at = next;
      }
    };
    for (const section of sections) {
      commandsUpTo(section.offset);
      const { name, instance, version, sectionId, sizeBytes } = section;
      at = section.offset + sizeBytes;
      this.#add({
        kind: "device",
        name,
        instance,
        version,
        sectionId,
        ...this.#at({ offset: section.offset, endOffset: at }),
        fields: () => section.fields(),
      });
    }
    commandsUpTo(end);
    this.#add({ kind: "eof", ...this.#at({ offset: end, endOffset: end + 1 }) });
  }

  /** A checkpoint's state is not described; the first pass's description may fit. */
  #checkpointState(state: Uint8Array, offset: number): void {
    const sections = this.#vmdesc && walkIfFits(state, this.#vmdesc, offset);
    if (sections !== undefined) return this.#devices(state, sections, offset);
    const { names, isComplete } = sketchDeviceState(state, [], offset);
    this.#add({
      kind: "device-state",
      devices: names,
      complete: isComplete,
      ...this.#at({ offset, endOffset: offset + state.length }),
    });
  }

  #unfinished(endOffset: number): void {
    const offset = this.#endOffset;
    if (pagesSent(this.#tally) > 0 || this.#marks > 0 || this.#announced !== undefined) {
      return this.#ram(null, null, offset, endOffset);
    }
    const place = this.#parser().place;
    this.#add({ kind: "unfinished", place, ...this.#at({ offset, endOffset }) });
  }
}
