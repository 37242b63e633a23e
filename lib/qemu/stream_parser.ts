import { decodeCheckpointMessage, decodeVmstateSize } from "./colo_records.ts";
import { decodeConfiguration, refuseCapabilities } from "./configuration.ts";
import { DeviceCollector } from "./devices/device_collector.ts";
import type { DeviceSection } from "./devices/device_state.ts";
import { DeviceLayout } from "./devices/device_layout.ts";
import type { KnownSection } from "./devices/device_sketch.ts";
import { emptyContext, fail, NEED_MORE, RamParser } from "./ram_parser.ts";
import {
  decodeCommand,
  decodeFooter,
  decodeSectionPart,
  decodeSectionStart,
  decodeStreamHeader,
  refuseEarlyDevice,
} from "./section_records.ts";
import {
  type CheckpointContext,
  type ParserConfig,
  type ParserState,
  placeOf,
} from "./parser_state.ts";
import { refuseMore, refuseSeveral, refuseTruncated } from "./stream_end_faults.ts";
import type { StreamVisitor } from "./stream_events.ts";
import {
  COLO_MESSAGE,
  COMMAND,
  DEFAULT_PAGE_BYTES,
  nameOf,
  QEMU_VM_FILE_MAGIC,
  SECTION,
} from "./wire.ts";

/**
 * Parses QEMU's migration streams, plain or COLO, one after another, from any split of the bytes.
 *
 * The caller owns the bytes. {@link parse} takes whole records only and returns how far it came;
 * the caller presents the rest again with more bytes. Everything found goes to the visitor at once.
 *
 * @see QEMU migration/savevm.c, qemu_loadvm_state_main(); migration/colo.c
 */
export class StreamParser {
  readonly #visitor: StreamVisitor;
  #state: ParserState = "header";
  #consumed = 0;
  /** Inside a COLO checkpoint, between VMSTATE_SEND and the end of its device state. */
  #inCheckpoint = false;
  /** CHECKPOINT_REQUEST has passed, VMSTATE_SEND has not. */
  #requested = false;
  #afterHeader = false;
  #ramEnded = false;
  #ram = new RamParser(emptyContext(DEFAULT_PAGE_BYTES, false));
  #ramSectionId = NEED_MORE;
  #section = { type: 0, offset: 0 };
  readonly #device = new DeviceCollector();
  #known: readonly KnownSection[] = [];
  #layout = new DeviceLayout();
  /** The last device state ended by {@link endState}. */
  #endedByWord = false;
  readonly #config: ParserConfig;
  /** The last step has found a list of RAM blocks, at which parsing is to stop. */
  #stops = false;

  constructor(visitor: StreamVisitor, config: ParserConfig = {}) {
    this.#visitor = visitor;
    this.#config = config;
  }

  /** Makes a parser that begins with a checkpoint's RAM, right behind VMSTATE_SEND. */
  static forCheckpoint(visitor: StreamVisitor, context: CheckpointContext): StreamParser {
    const parser = new StreamParser(visitor);
    parser.#ram = new RamParser(context.ram);
    parser.#ramSectionId = context.ramSectionId;
    parser.#known = context.sections;
    parser.#layout = context.layout;
    parser.#state = "sections";
    parser.#inCheckpoint = true;
    return parser;
  }

  /** Bytes taken so far: the stream offset of whatever comes next. */
  get streamOffset(): number {
    return this.#consumed;
  }
  /** True between streams, and between a COLO stream's checkpoints. */
  get atBoundary(): boolean {
    return this.#state === "between" || (this.#state === "header" && this.#consumed === 0);
  }
  get pageBytes(): number {
    return this.#ram.context.pageBytes;
  }
  /** What {@link forCheckpoint} needs to go on from here. */
  get checkpointContext(): CheckpointContext {
    return {
      ram: this.#ram.context,
      ramSectionId: this.#ramSectionId,
      sections: this.#known,
      layout: this.#layout,
    };
  }

  /** The parser's place, in words. */
  get place(): string {
    return placeOf(this.#state, this.#inCheckpoint, this.#device.lengthBytes);
  }

  /** True while the device state of a plain stream or first pass is being collected. */
  get inDeviceState(): boolean {
    return this.#state === "device";
  }
  /** Whether the bytes so far are a whole stream, if it ends here without VMDESCRIPTION. */
  get mayEndHere(): boolean {
    return this.#state === "device" && this.#device.isWholeState;
  }

  /**
   * Parses the whole records in `bytes[start, end)`, or until a whole stream (or, as configured, a
   * list of RAM blocks) has passed, after which the caller may have to decide something.
   *
   * @returns One past the last byte taken. The bytes from there on must be presented again.
   * @throws {WireError} at the first byte that cannot be accounted for.
   */
  parse(bytes: Uint8Array, start: number, end: number): number {
    let at = start;
    const base = this.#consumed - start;
    while (at < end) {
      const wasDevice = this.#state === "device";
      const next = this.#step(bytes, at, end, base);
      if (next === NEED_MORE) break;
      at = next;
      this.#consumed = base + at;
      if (this.#stops || wasDevice && this.#state === "between") break;
    }
    return at;
  }

  /**
   * Ends the device state with the last byte parsed, for a stream without VMDESCRIPTION. To be
   * called only if it is known that no more of the state comes.
   *
   * @throws {WireError} if the state is not whole; nothing has changed then. See
   *   `partitionDeviceState`.
   */
  endState(): void {
    if (this.#state !== "device") {
      fail(this.#consumed, "bad-order", `the state is said to end inside ${this.place}`);
    }
    const { state, sections } = this.#device.undescribed();
    this.#completeState(state, sections, this.#device.offset + state.length);
    this.#endedByWord = true;
  }

  /**
   * Ends the input: no more bytes will come.
   *
   * @param unparsedBytes How many bytes {@link parse} left.
   * @throws {WireError} `truncated` unless the parser is at a boundary, or a stream without
   *   VMDESCRIPTION may end there.
   */
  finish(unparsedBytes: number): void {
    if (this.atBoundary && unparsedBytes === 0) return;
    const offset = this.#consumed + unparsedBytes;
    if (unparsedBytes === 0 && this.mayEndHere) {
      if (this.#device.followed() === undefined) return this.endState();
      refuseSeveral(offset);
    }
    refuseTruncated(offset, this.place);
  }

  #step(bytes: Uint8Array, at: number, end: number, base: number): number {
    switch (this.#state) {
      case "header":
        return this.#header(bytes, at, end, base);
      case "sections":
        return this.#sectionType(bytes, at, end, base);
      case "ram":
        return this.#ramRecords(bytes, at, end, base);
      case "footer":
        return this.#footer(bytes, at, end, base);
      case "device":
        return this.#deviceState(bytes, at, end);
      case "between":
        return this.#between(bytes, at, end, base);
      case "size":
        return this.#vmstateSize(bytes, at, end, base);
      case "checkpoint-device":
        return this.#checkpointDevice(bytes, at, end, base);
    }
  }

  #header(bytes: Uint8Array, at: number, end: number, base: number): number {
    const decoded = decodeStreamHeader(bytes, at, end, base);
    if (decoded === undefined) return NEED_MORE;
    const { version, next } = decoded;
    this.#state = "sections";
    this.#afterHeader = true;
    this.#ramEnded = false;
    this.#ramSectionId = NEED_MORE;
    this.#ram = new RamParser(emptyContext(DEFAULT_PAGE_BYTES, false));
    this.#visitor.event({ kind: "header", offset: base + at, endOffset: base + next, version });
    return next;
  }

  #sectionType(bytes: Uint8Array, at: number, end: number, base: number): number {
    const type = bytes[at];
    switch (type) {
      case SECTION.QEMU_VM_CONFIGURATION:
        return this.#configuration(bytes, at, end, base);
      case SECTION.QEMU_VM_COMMAND:
        return this.#command(bytes, at, end, base);
      case SECTION.QEMU_VM_SECTION_START:
        return this.#sectionStart(bytes, at, end, base);
      case SECTION.QEMU_VM_SECTION_PART:
      case SECTION.QEMU_VM_SECTION_END: {
        const next = decodeSectionPart(bytes, at, end, base, this.#ramSectionId);
        return next === undefined ? NEED_MORE : this.#beginRam(type, at, next, base);
      }
      case SECTION.QEMU_VM_SECTION_FULL:
        if (this.#inCheckpoint) {
          fail(base + at, "bad-order", "a device section before the end of a checkpoint's RAM");
        }
        if (!this.#ramEnded) return refuseEarlyDevice(bytes, at, end, base) ?? NEED_MORE;
        return this.#beginDevice(at, base);
      case SECTION.QEMU_VM_EOF:
        return this.#endOfSections(at, base);
      default:
        return fail(
          base + at,
          "bad-value",
          `byte 0x${type.toString(16).padStart(2, "0")} (${
            nameOf(SECTION, type)
          }) where a section begins`,
        );
    }
  }

  #endOfSections(at: number, base: number): number {
    if (!this.#inCheckpoint) {
      if (!this.#ramEnded) fail(base + at, "bad-order", "the state ends (EOF) before its RAM does");
      return this.#beginDevice(at, base);
    }
    this.#state = "size";
    const offset = base + at;
    this.#visitor.event({ kind: "checkpoint-ram-end", offset, endOffset: offset + 1 });
    return at + 1;
  }

  #configuration(bytes: Uint8Array, at: number, end: number, base: number): number {
    if (!this.#afterHeader) fail(base + at, "bad-order", "CONFIGURATION not behind the header");
    const decoded = decodeConfiguration(bytes, at, end, base);
    if (decoded === undefined) return NEED_MORE;
    const { configuration, next } = decoded;
    refuseCapabilities(configuration, base + at);
    this.#ram = new RamParser(emptyContext(
      configuration.targetPageBits === undefined
        ? DEFAULT_PAGE_BYTES
        : 2 ** configuration.targetPageBits,
      configuration.capabilities.includes("x-ignore-shared"),
    ));
    this.#afterHeader = false;
    const offset = base + at;
    this.#visitor.event({ kind: "configuration", offset, endOffset: base + next, configuration });
    return next;
  }

  #command(bytes: Uint8Array, at: number, end: number, base: number): number {
    const decoded = decodeCommand(bytes, at, end, base);
    if (decoded === undefined) return NEED_MORE;
    const { command, data, next } = decoded;
    if (command === COMMAND.MIG_CMD_POSTCOPY_ADVISE) {
      if (this.#ram.context.addressed) {
        fail(base + at, "unsupported", "postcopy together with x-ignore-shared");
      }
      this.#ram = new RamParser({ ...this.#ram.context, postcopyAdvised: true });
    }
    this.#afterHeader = false;
    const place = { offset: base + at, endOffset: base + next };
    this.#visitor.event({ kind: "command", ...place, command, data });
    return next;
  }

  #sectionStart(bytes: Uint8Array, at: number, end: number, base: number): number {
    const decoded = decodeSectionStart(bytes, at, end, base);
    if (decoded === undefined) return NEED_MORE;
    if (this.#inCheckpoint) fail(base + at, "bad-order", "ram START inside a checkpoint");
    this.#ramSectionId = decoded.sectionId;
    return this.#beginRam(SECTION.QEMU_VM_SECTION_START, at, decoded.next, base);
  }

  #beginRam(type: number, at: number, next: number, base: number): number {
    this.#section = { type, offset: base + at };
    this.#afterHeader = false;
    this.#state = "ram";
    return next;
  }

  #ramRecords(bytes: Uint8Array, at: number, end: number, base: number): number {
    const next = this.#ram.parse(bytes, at, end, base, this.#visitor);
    this.#stops = this.#config.stopsAtBlocks === true && this.#ram.announced !== undefined;
    if (this.#ram.announced !== undefined) {
      const place = { offset: base + at, endOffset: base + next };
      this.#visitor.event({ kind: "ram-blocks", ...place, blocks: this.#ram.announced });
    }
    if (this.#ram.ended) this.#state = "footer";
    return next === at ? NEED_MORE : next;
  }

  #footer(bytes: Uint8Array, at: number, end: number, base: number): number {
    const sectionId = this.#ramSectionId;
    const next = decodeFooter(bytes, at, end, base, sectionId);
    if (next === undefined) return NEED_MORE;
    const { type, offset } = this.#section;
    if (type === SECTION.QEMU_VM_SECTION_END) this.#ramEnded = true;
    this.#state = "sections";
    this.#visitor.event({ kind: "ram-section", offset, endOffset: base + next, type, sectionId });
    return next;
  }

  #beginDevice(at: number, base: number): number {
    this.#state = "device";
    this.#device.start(base + at);
    return at;
  }

  /** Collects until EOF and VMDESCRIPTION are found; later bytes are not taken. */
  #deviceState(bytes: Uint8Array, at: number, end: number): number {
    const before = this.#device.lengthBytes;
    this.#device.add(bytes, at, end);
    const found = this.#device.described();
    if (found !== undefined) {
      const { state, json, sections, totalBytes } = found;
      this.#completeState(state, sections, this.#device.offset + totalBytes, json);
      return at + totalBytes - before;
    }
    const stateBytes = this.#config.isRecording ? this.#device.followed() : undefined;
    if (stateBytes === undefined) return end;
    const { state, sections } = this.#device.undescribed(stateBytes);
    this.#completeState(state, sections, this.#device.offset + stateBytes);
    return at + stateBytes - before;
  }

  #completeState(
    state: Uint8Array,
    sections: readonly DeviceSection[],
    endOffset: number,
    json?: Uint8Array,
  ): void {
    const offset = this.#device.offset;
    const stateEnd = offset + state.length;
    this.#state = "between";
    this.#endedByWord = false;
    this.#known = sections.map(({ name, instance, sizeBytes }) => ({ name, instance, sizeBytes }));
    this.#visitor.event({ kind: "device-state", offset, endOffset: stateEnd, state, sections });
    if (json !== undefined) {
      this.#visitor.event({ kind: "vmdescription", offset: stateEnd, endOffset, json });
    }
    this.#visitor.event({ kind: "stream-complete", offset: endOffset, endOffset });
  }

  #between(bytes: Uint8Array, at: number, end: number, base: number): number {
    if (bytes[at] === QEMU_VM_FILE_MAGIC >>> 24 && !this.#requested) {
      this.#state = "header";
      return at;
    }
    if (this.#endedByWord && bytes[at] !== 0) refuseMore(base + at, bytes[at]);
    const decoded = decodeCheckpointMessage(bytes, at, end, base, this.#requested);
    if (decoded === undefined) return NEED_MORE;
    const { message, next } = decoded;
    this.#requested = message === COLO_MESSAGE.CHECKPOINT_REQUEST;
    if (message === COLO_MESSAGE.VMSTATE_SEND) {
      this.#state = "sections";
      this.#inCheckpoint = true;
    }
    this.#visitor.event({ kind: "colo", offset: base + at, endOffset: base + next, message });
    return next;
  }

  #vmstateSize(bytes: Uint8Array, at: number, end: number, base: number): number {
    const decoded = decodeVmstateSize(bytes, at, end, base);
    if (decoded === undefined) return NEED_MORE;
    const { message, sizeBytes, next } = decoded;
    this.#state = "checkpoint-device";
    this.#device.start(base + next, sizeBytes);
    const offset = base + at;
    this.#visitor.event({ kind: "colo", offset, endOffset: base + next, message, sizeBytes });
    return next;
  }

  #checkpointDevice(bytes: Uint8Array, at: number, end: number, base: number): number {
    const next = Math.min(end, at + this.#device.wantedBytes - this.#device.lengthBytes);
    this.#device.add(bytes, at, next);
    if (this.#device.lengthBytes < this.#device.wantedBytes) return next;
    const state = this.#device.take();
    const offset = this.#device.offset;
    const sections = this.#layout.check(state, this.#known, offset);
    this.#state = "between";
    this.#inCheckpoint = false;
    this.#visitor.event({ kind: "checkpoint", offset, endOffset: base + next, state, sections });
    return next;
  }
}
