/**
 * Finds the end of device state in a plain stream while the stream is still coming in.
 *
 * Device state has no length of its own. An EOF byte with a VMDESCRIPTION behind it ends it: 0x00,
 * 0x06, `u32` n, n bytes of JSON. A device's payload may contain the same bytes by chance or on
 * purpose, so a place counts only if its JSON is whole and describes devices.
 */
import { MAX_VMDESC_BYTES } from "./vmdesc.ts";
import { SECTION } from "../wire.ts";

/** EOF, type byte and length before the JSON. */
const HEADER_BYTES = 6;
/** The shortest JSON that can describe devices: `{"devices":[]}`. */
const MIN_JSON_BYTES = 14;
/** How much of an incomplete JSON is examined. */
const GLANCE_BYTES = 4096;

/** The outcome of a search; every offset is an index in the buffer that was searched. */
type DeviceStateSearch =
  | {
    readonly kind: "found";
    /** The index of the EOF byte that ends the device state. */
    readonly eofOffset: number;
    readonly jsonStart: number;
    /** One past the JSON's last byte. */
    readonly jsonEnd: number;
  }
  | {
    readonly kind: "more";
    /** Where the next search, over the same bytes and more, must begin. */
    readonly from: number;
  };

/**
 * Looks for the end of device state.
 *
 * @param buffer Everything received so far; not kept.
 * @param from Where to begin: at first, at the device state's beginning; later, where the last
 *   search said.
 */
export function findDeviceStateEnd(buffer: Uint8Array, from: number): DeviceStateSearch {
  let resume: number | undefined;
  let eofOffset = from;
  for (;;) {
    const typeOffset = buffer.indexOf(SECTION.QEMU_VM_VMDESCRIPTION, eofOffset + 1);
    if (typeOffset < 0) {
      // The last byte may be an EOF whose VMDESCRIPTION is still to come.
      return { kind: "more", from: resume ?? Math.max(from, buffer.length - 1) };
    }
    eofOffset = typeOffset - 1;
    const verdict = judge(buffer, eofOffset);
    if (verdict === "found") {
      const jsonStart = eofOffset + HEADER_BYTES;
      const jsonEnd = jsonStart + jsonLength(buffer, eofOffset);
      return { kind: "found", eofOffset, jsonStart, jsonEnd };
    }
    // An undecided place may be payload that only looks like an end: search on behind it. JSON has
    // no byte 0x06, so no later place can be inside the right one.
    if (verdict === "undecided") resume ??= eofOffset;
    eofOffset = typeOffset;
  }
}

function judge(buffer: Uint8Array, eofOffset: number): "found" | "undecided" | "not here" {
  if (buffer[eofOffset] !== SECTION.QEMU_VM_EOF) return "not here";
  const jsonStart = eofOffset + HEADER_BYTES;
  if (buffer.length < jsonStart) return "undecided";
  const lengthBytes = jsonLength(buffer, eofOffset);
  if (lengthBytes < MIN_JSON_BYTES || lengthBytes > MAX_VMDESC_BYTES) return "not here";
  const json = buffer.subarray(jsonStart, jsonStart + lengthBytes);
  if (json.length > 0 && json[0] !== 0x7b) return "not here";
  if (json.length < lengthBytes) {
    return isText(json.subarray(0, GLANCE_BYTES)) ? "undecided" : "not here";
  }
  return isText(json.subarray(0, GLANCE_BYTES)) && describesDevices(json) ? "found" : "not here";
}

function jsonLength(buffer: Uint8Array, eofOffset: number): number {
  return new DataView(buffer.buffer, buffer.byteOffset + eofOffset + 2, 4).getUint32(0);
}

/** Whether no byte is a control character: JSON writes them escaped. */
function isText(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte >= 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09);
}

function describesDevices(json: Uint8Array): boolean {
  if (json[json.length - 1] !== 0x7d) return false;
  try {
    const value: unknown = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(json));
    return typeof value === "object" && value !== null &&
      Array.isArray((value as { devices?: unknown }).devices);
  } catch {
    return false;
  }
}
