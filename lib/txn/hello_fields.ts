import { refuse } from "./wire_fault.ts";

/** What stands behind the software's name in HELLO: more about an end, field by field. */
export interface HelloField {
  /** One of {@link HELLO_FIELD}, or of a later version. */
  readonly tag: number;
  readonly bytes: Uint8Array;
}

/** The fields of this version, all from the sender. An end passes over those it does not know. */
export const HELLO_FIELD = {
  /** 16 bytes: the VM's UUID. */
  vmUuid: 1,
  /** UTF-8, 1 to 200 bytes: the VM's name. */
  vmName: 2,
  /** 16 bytes: the QEMU process that runs the VM, wherever it was told by. */
  vmProcess: 3,
  /** 16 bytes: a digest of the VM's devices, for one that has neither UUID nor name. */
  vmShape: 4,
  /** See docs/PROTOCOL.md: a mark on a disk's image, once for each disk. */
  diskMark: 5,
} as const;

/** How many fields a HELLO may have: some for the VM, and one for each disk. */
export const MAX_HELLO_FIELDS = 256;

/** Encodes fields: `u16 tag, u16 n, n bytes` each. */
export function encodeHelloFields(fields: readonly HelloField[]): Uint8Array {
  const bytes = new Uint8Array(fields.reduce((sum, field) => sum + 4 + field.bytes.length, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const { tag, bytes: content } of fields) {
    view.setUint16(at, tag);
    view.setUint16(at + 2, content.length);
    bytes.set(content, at + 4);
    at += 4 + content.length;
  }
  return bytes;
}

/**
 * Decodes the fields from `at` to the end.
 *
 * @param offset Of `bytes[0]` in the connection.
 * @returns All of them, known or not; their bytes are copies.
 * @throws {WireError} `bad-length` where one is cut, or there are too many.
 */
export function decodeHelloFields(bytes: Uint8Array, at: number, offset: number): HelloField[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const fields: HelloField[] = [];
  while (at < bytes.length) {
    const left = bytes.length - at;
    if (left < 4 || left < 4 + view.getUint16(at + 2)) {
      refuse(offset + at, "bad-length", "HELLO ends in a field");
    }
    if (fields.length === MAX_HELLO_FIELDS) {
      refuse(offset + at, "bad-length", `HELLO with more than ${MAX_HELLO_FIELDS} fields`);
    }
    const end = at + 4 + view.getUint16(at + 2);
    fields.push({ tag: view.getUint16(at), bytes: bytes.slice(at + 4, end) });
    at = end;
  }
  return fields;
}
