/**
 * Device state: the SECTION_FULL sections between the last `ram` section and the EOF byte.
 *
 * No section says how long it is. {@link walkDeviceState} takes the sizes from the description
 * (vmdesc) that follows the state, and accounts for every byte; the state of a checkpoint, which
 * has no description, is checked by `sketchDeviceState` in device_sketch.ts.
 *
 * Wire shape, big-endian: `u8` 0x04, `u32` section id, `u8` n + n bytes of name, `u32` instance,
 * `u32` version, fields; subsections as `u8` 0x05, `u8` n + name, `u32` version, fields; then `u8`
 * 0x7e, `u32` section id. COMMANDs (`u8` 0x08, `u16`, `u16` n, n bytes) may be between.
 *
 * @see QEMU migration/savevm.c, migration/vmstate.c
 */
import { WireError, type WireFault } from "../../errors.ts";
import { decodeDeviceFields, type DeviceField } from "./device_fields.ts";
import {
  deviceKey,
  quote,
  subsectionHeaderBytes,
  type Vmdesc,
  type VmdescStruct,
} from "./vmdesc.ts";
import { SECTION } from "../wire.ts";

/** Bytes of a footer: its type byte and the section's id. */
export const FOOTER_BYTES = 5;

/** The names by which a loading QEMU finds a section's device. */
export interface SectionName {
  /** QEMU's idstr, such as `0000:00:04.0/virtio-rng`. */
  readonly name: string;
  readonly instance: number;
  readonly version: number;
}

/** The header of a SECTION_FULL. */
export interface SectionHeader extends SectionName {
  readonly sectionId: number;
  readonly headerBytes: number;
}

/** One device's section. It refers to the state that was walked, which must stay unchanged. */
export interface DeviceSection {
  readonly name: string;
  readonly instance: number;
  readonly version: number;
  readonly sectionId: number;
  /** Of the section's type byte, from the start of the stream. */
  readonly offset: number;
  /** With header and footer. */
  readonly sizeBytes: number;
  /** Decodes the fields, in order, subsections last. */
  fields(): Generator<DeviceField>;
}

/**
 * Splits device state into its sections and checks that description and bytes agree to the byte.
 *
 * @param state From the first section's type byte up to and including the EOF byte. Kept by the
 * returned sections' `fields()`; not copied.
 * @param vmdesc The description that came with this very state.
 * @param streamOffset Where `state` begins in the stream.
 * @throws {WireError} At the first byte that contradicts the description: `truncated`,
 * `bad-length`, `bad-value`; `unsupported` for an iterable section or one not described.
 */
export function walkDeviceState(
  state: Uint8Array,
  vmdesc: Vmdesc,
  streamOffset: number,
): DeviceSection[] {
  const devices = new Map(
    vmdesc.devices.map((device) => [deviceKey(device.name, device.instance), device]),
  );
  const sections: DeviceSection[] = [];
  const view = viewOf(state);
  let position = 0;
  for (;;) {
    const kind = byteAt(state, position, streamOffset, "a section");
    if (kind === SECTION.QEMU_VM_EOF) break;
    if (kind === SECTION.QEMU_VM_COMMAND) {
      position += commandBytes(state, position, streamOffset);
      continue;
    }
    const header = decodeSectionHeader(state, position, streamOffset);
    const key = deviceKey(header.name, header.instance);
    const device = devices.get(key);
    if (device === undefined) {
      throw fault(
        streamOffset + position,
        "unsupported",
        `section ${sectionLabel(header)} is here, but the description has no such device left`,
      );
    }
    devices.delete(key);
    const start = position;
    const payload = start + header.headerBytes;
    const end = payload + device.struct.sizeBytes;
    const label = sectionLabel(header);
    if (end + FOOTER_BYTES > state.length) {
      throw fault(
        streamOffset + state.length,
        "truncated",
        `section ${label} should go on: it begins at ${streamOffset + start}, ` +
          `and its description claims ${device.struct.sizeBytes} bytes`,
      );
    }
    checkSubsections(state, view, device.struct, payload, streamOffset, label);
    checkFooter(state, view, header, end, streamOffset);
    position = end + FOOTER_BYTES;
    sections.push({
      name: header.name,
      instance: header.instance,
      version: header.version,
      sectionId: header.sectionId,
      offset: streamOffset + start,
      sizeBytes: position - start,
      fields: () => decodeDeviceFields(state, device.struct, payload, streamOffset),
    });
  }
  if (position !== state.length - 1) {
    throw fault(
      streamOffset + position,
      "bad-length",
      `the device state ends here (EOF), ${state.length - 1 - position} bytes early`,
    );
  }
  const [missing] = devices.values();
  if (missing !== undefined) {
    throw fault(
      streamOffset + position,
      "bad-length",
      `the device state ends here, but device ${quote(missing.name)} ${missing.instance} ` +
        "of the description has not come",
    );
  }
  return sections;
}

/** As {@link walkDeviceState}; undefined where the description is not this state's. */
export function walkIfFits(
  state: Uint8Array,
  vmdesc: Vmdesc,
  streamOffset: number,
): DeviceSection[] | undefined {
  try {
    return walkDeviceState(state, vmdesc, streamOffset);
  } catch (error) {
    if (error instanceof WireError) return undefined;
    throw error;
  }
}

/** Bytes of a SECTION_FULL's header, with a name of so many. */
export function sectionHeaderBytes(nameBytes: number): number {
  return 14 + nameBytes;
}

/**
 * Decodes the header of the SECTION_FULL at `position`.
 *
 * @throws {WireError} `truncated`; `unsupported` for an iterable section; `bad-value` for any
 * other type byte or an empty name.
 */
export function decodeSectionHeader(
  state: Uint8Array,
  position: number,
  streamOffset: number,
): SectionHeader {
  const kind = byteAt(state, position, streamOffset, "a section");
  if (kind >= SECTION.QEMU_VM_SECTION_START && kind <= SECTION.QEMU_VM_SECTION_END) {
    throw fault(
      streamOffset + position,
      "unsupported",
      `an iterable section (type ${kind}) stands among the device state`,
      "a device with live state of its own, such as VFIO, cannot be protected",
    );
  }
  if (kind !== SECTION.QEMU_VM_SECTION_FULL) {
    throw fault(
      streamOffset + position,
      "bad-value",
      `a section was expected, not type byte 0x${kind.toString(16).padStart(2, "0")}`,
    );
  }
  const nameBytes = byteAt(state, position + 5, streamOffset, "a section's header");
  const headerBytes = sectionHeaderBytes(nameBytes);
  if (position + headerBytes > state.length) {
    throw fault(streamOffset + state.length, "truncated", "a section's header should go on");
  }
  if (nameBytes === 0) {
    throw fault(streamOffset + position + 5, "bad-value", "a section has an empty name");
  }
  const view = viewOf(state);
  return {
    sectionId: view.getUint32(position + 1),
    name: textOf(state, position + 6, nameBytes),
    instance: view.getUint32(position + 6 + nameBytes),
    version: view.getUint32(position + 10 + nameBytes),
    headerBytes,
  };
}

/** The length of the COMMAND at `position`, including its header. */
export function commandBytes(state: Uint8Array, position: number, streamOffset: number): number {
  const high = byteAt(state, position + 3, streamOffset, "a COMMAND");
  const low = byteAt(state, position + 4, streamOffset, "a COMMAND");
  const sizeBytes = 5 + high * 256 + low;
  if (position + sizeBytes > state.length) {
    throw fault(streamOffset + state.length, "truncated", "a COMMAND should go on");
  }
  return sizeBytes;
}

/** A section's name for a message. */
export function sectionLabel(header: SectionHeader): string {
  return `${quote(header.name)} (instance ${header.instance}, id ${header.sectionId})`;
}

function checkFooter(
  state: Uint8Array,
  view: DataView,
  header: SectionHeader,
  end: number,
  streamOffset: number,
): void {
  const label = sectionLabel(header);
  if (state[end] !== SECTION.QEMU_VM_SECTION_FOOTER) {
    throw fault(
      streamOffset + end,
      "bad-length",
      `section ${label} should end here, but its footer is not here`,
      "either the section is longer or shorter than its description says, or this machine type " +
        "sends no section footers",
    );
  }
  const footerId = view.getUint32(end + 1);
  if (footerId !== header.sectionId) {
    throw fault(
      streamOffset + end + 1,
      "bad-value",
      `section ${label} is closed by the footer of section id ${footerId}`,
    );
  }
}

/**
 * Checks every subsection's header where the description puts it; returns the end of `struct`.
 * The caller made sure that the whole struct lies within `state`.
 */
function checkSubsections(
  state: Uint8Array,
  view: DataView,
  struct: VmdescStruct,
  start: number,
  streamOffset: number,
  label: string,
): number {
  if (!struct.hasSubsections) return start + struct.sizeBytes;
  let position = start;
  for (const field of struct.fields) {
    if (field.struct?.hasSubsections === true) {
      for (let element = 0; element < field.arrayLength; element++) {
        position = checkSubsections(state, view, field.struct, position, streamOffset, label);
      }
    } else {
      position += field.elementBytes * field.arrayLength;
    }
  }
  for (const subsection of struct.subsections) {
    const headerBytes = subsectionHeaderBytes(subsection);
    const nameBytes = headerBytes - 6;
    const found = state[position] === SECTION.QEMU_VM_SUBSECTION &&
      state[position + 1] === nameBytes &&
      textOf(state, position + 2, nameBytes) === subsection.vmsdName;
    if (!found) {
      throw fault(
        streamOffset + position,
        "bad-length",
        `section ${label}: subsection ${quote(subsection.vmsdName)} should begin here`,
      );
    }
    const version = view.getUint32(position + 2 + nameBytes);
    if (version !== subsection.version) {
      throw fault(
        streamOffset + position + 2 + nameBytes,
        "bad-version",
        `section ${label}: subsection ${quote(subsection.vmsdName)} has version ${version}, ` +
          `its description has ${subsection.version}`,
      );
    }
    position = checkSubsections(
      state,
      view,
      subsection,
      position + headerBytes,
      streamOffset,
      label,
    );
  }
  return position;
}

function byteAt(state: Uint8Array, position: number, streamOffset: number, what: string): number {
  const byte = state[position];
  if (byte === undefined) {
    throw fault(streamOffset + state.length, "truncated", `${what} should stand here or go on`);
  }
  return byte;
}

/**
 * Decodes a name byte by byte: names are ASCII in every QEMU, and other bytes must not match by
 * accident.
 */
function textOf(state: Uint8Array, start: number, lengthBytes: number): string {
  return String.fromCharCode(...state.subarray(start, start + lengthBytes));
}

function viewOf(state: Uint8Array): DataView {
  return new DataView(state.buffer, state.byteOffset, state.byteLength);
}

function fault(offset: number, kind: WireFault, message: string, hint?: string): WireError {
  return new WireError("migration", offset, kind, message, { hint });
}
