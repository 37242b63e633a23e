/**
 * A checkpoint's device state, which comes without a description.
 *
 * In COLO only the first pass is described, and later states may differ from it in size: a
 * subsection appears, a queue grows. What is certain is checked strictly; the rest is split as far
 * as the bytes allow.
 */
import { WireError, type WireFault } from "../../errors.ts";
import {
  commandBytes,
  decodeSectionHeader,
  FOOTER_BYTES,
  type SectionHeader,
  sectionHeaderBytes,
} from "./device_state.ts";
import { deviceKey } from "./vmdesc.ts";
import { SECTION } from "../wire.ts";

/** A section of the first pass; every DeviceSection is one. */
export interface KnownSection {
  readonly name: string;
  readonly instance: number;
  /** With header and footer. */
  readonly sizeBytes: number;
}

/** A section, as far as known without a description. */
export interface SketchedSection extends SectionHeader {
  /** Its offset in the state. */
  readonly start: number;
  /** With header and footer. */
  readonly sizeBytes: number;
}

/** The result. */
interface DeviceSketch {
  /** Section names in order. */
  readonly names: readonly string[];
  /** The sections whose end was found: all, or all but the last. */
  readonly sections: readonly SketchedSection[];
  /** Whether the sections found cover every byte. */
  readonly isComplete: boolean;
}

/**
 * Checks device state without a description.
 *
 * @param state From the first section's type byte up to and including EOF; not kept.
 * @param known The sections of the first pass, whose sizes are tried first.
 * @param streamOffset Where `state` begins in the stream.
 * @throws {WireError} `truncated` if it is too short for one section; `bad-value` if it does not
 * begin with a section, does not end with a footer and EOF, or that footer closes no section in it.
 */
export function sketchDeviceState(
  state: Uint8Array,
  known: Iterable<KnownSection>,
  streamOffset: number,
): DeviceSketch {
  checkEnds(state, streamOffset);
  const sizes = new Map<string, number>();
  for (const { name, instance, sizeBytes } of known) {
    sizes.set(deviceKey(name, instance), sizeBytes);
  }
  const eof = state.length - 1;
  const names: string[] = [];
  const sections: SketchedSection[] = [];
  let position = 0;
  while (position < eof) {
    if (state[position] === SECTION.QEMU_VM_COMMAND) {
      position += commandBytes(state, position, streamOffset);
      continue;
    }
    // Only the first header is certain; a later one may be payload behind bytes that look like a
    // footer.
    if (names.length > 0 && !isSectionOpening(state, position)) break;
    const header = decodeSectionHeader(state, position, streamOffset);
    names.push(header.name);
    const expected = sizes.get(deviceKey(header.name, header.instance));
    const guess = expected === undefined ? undefined : position + expected;
    const end = guess !== undefined && isSectionEnd(state, guess, header.sectionId)
      ? guess
      : searchSectionEnd(state, position + header.headerBytes, header.sectionId);
    if (end === undefined) break;
    sections.push({ ...header, start: position, sizeBytes: end - position });
    position = end;
  }
  return { names, sections, isComplete: position === eof };
}

function checkEnds(state: Uint8Array, streamOffset: number): void {
  const eof = state.length - 1;
  const footer = eof - FOOTER_BYTES;
  if (footer < 1) {
    throw fault(streamOffset, "truncated", `${state.length} bytes are no device state`);
  }
  const first = state[0];
  if (first !== SECTION.QEMU_VM_SECTION_FULL && first !== SECTION.QEMU_VM_COMMAND) {
    throw fault(streamOffset, "bad-value", `device state begins with byte 0x${first.toString(16)}`);
  }
  if (state[eof] !== SECTION.QEMU_VM_EOF) {
    throw fault(streamOffset + eof, "bad-value", "device state does not end with an EOF byte");
  }
  if (state[footer] !== SECTION.QEMU_VM_SECTION_FOOTER) {
    throw fault(streamOffset + footer, "bad-value", "there is no footer before the EOF byte");
  }
  const id = state.subarray(footer + 1, eof);
  for (let before = footer; before > 0;) {
    const at = state.lastIndexOf(SECTION.QEMU_VM_SECTION_FULL, before - 1);
    if (at >= 0 && startsWith(state, at + 1, id)) return;
    before = at;
  }
  throw fault(streamOffset + footer + 1, "bad-value", "the last footer closes no section in here");
}

/** Whether a section of this id can end just before `position`. */
function isSectionEnd(state: Uint8Array, position: number, sectionId: number): boolean {
  const footer = position - FOOTER_BYTES;
  if (footer < 0 || position >= state.length) return false;
  const view = new DataView(state.buffer, state.byteOffset, state.byteLength);
  return state[footer] === SECTION.QEMU_VM_SECTION_FOOTER &&
    view.getUint32(footer + 1) === sectionId && mayGoOn(state, position);
}

/** Whether a section or the EOF may follow here, behind any COMMANDs. */
export function mayGoOn(state: Uint8Array, position: number): boolean {
  const next = skipCommands(state, position);
  return next === state.length - 1 || isSectionOpening(state, next);
}

/** One past the COMMANDs that begin at `position`, if there are any. */
export function skipCommands(state: Uint8Array, position: number): number {
  while (state[position] === SECTION.QEMU_VM_COMMAND && position + 5 <= state.length) {
    position += 5 + state[position + 3] * 256 + state[position + 4];
  }
  return position;
}

function searchSectionEnd(
  state: Uint8Array,
  from: number,
  sectionId: number,
): number | undefined {
  let footer = state.indexOf(SECTION.QEMU_VM_SECTION_FOOTER, from);
  while (footer >= 0) {
    if (isSectionEnd(state, footer + FOOTER_BYTES, sectionId)) return footer + FOOTER_BYTES;
    footer = state.indexOf(SECTION.QEMU_VM_SECTION_FOOTER, footer + 1);
  }
  return undefined;
}

/** Whether a SECTION_FULL with a printable name may begin at `position`. */
export function isSectionOpening(state: Uint8Array, position: number): boolean {
  if (state[position] !== SECTION.QEMU_VM_SECTION_FULL) return false;
  const nameBytes = state[position + 5];
  if (!(nameBytes > 0) || position + sectionHeaderBytes(nameBytes) > state.length) return false;
  for (let at = position + 6; at < position + 6 + nameBytes; at++) {
    if (state[at] < 0x20 || state[at] > 0x7e) return false;
  }
  return true;
}

function startsWith(state: Uint8Array, position: number, bytes: Uint8Array): boolean {
  return bytes.every((byte, index) => state[position + index] === byte);
}

function fault(offset: number, kind: WireFault, message: string): WireError {
  return new WireError("colo", offset, kind, message);
}
