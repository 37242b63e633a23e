/** The marks on disks' images as fields of HELLO. */
import { HELLO_FIELD, type HelloField } from "../../txn/hello_fields.ts";
import { MAX_TAP_NAME_BYTES } from "../../txn/wire.ts";
import { refuse } from "../../txn/wire_fault.ts";

/** Bytes of a session's mark. */
export const MARK_BYTES = 16;
/** The most characters of a place; all of them are ASCII. */
const MAX_PLACE_LENGTH = 2000;

/** Tells the place of the primary's image of a disk, see `lib/decisions/same_image.ts`. */
export interface DiskMark {
  /** The tap's name. */
  readonly name: string;
  /** The mark that was put on the file that stores the image: 16 random bytes. */
  readonly mark: Uint8Array;
  readonly place: string;
}

const PRINTABLE = /^[\x20-\x7e]+$/;

/** Encodes a mark: `u8 n, n bytes name, 16 bytes mark, place`. */
export function encodeDiskMark({ name, mark, place }: DiskMark): HelloField {
  const text = new TextEncoder();
  const [nameBytes, placeBytes] = [text.encode(name), text.encode(place)];
  const bytes = new Uint8Array(1 + nameBytes.length + MARK_BYTES + placeBytes.length);
  bytes[0] = nameBytes.length;
  bytes.set(nameBytes, 1);
  bytes.set(mark, 1 + nameBytes.length);
  bytes.set(placeBytes, 1 + nameBytes.length + MARK_BYTES);
  return { tag: HELLO_FIELD.diskMark, bytes };
}

/**
 * Decodes all marks; a HELLO of an older sender has none.
 *
 * @param offset Of HELLO's payload, for errors.
 * @throws {WireError} `bad-length` or `bad-value`.
 */
export function decodeDiskMarks(fields: readonly HelloField[] = [], offset: number): DiskMark[] {
  const marks = new Map<string, DiskMark>();
  for (const { tag, bytes } of fields) {
    if (tag !== HELLO_FIELD.diskMark) continue;
    const nameEnd = 1 + (bytes[0] ?? 0);
    const markEnd = nameEnd + MARK_BYTES;
    if (
      nameEnd > 1 + MAX_TAP_NAME_BYTES || bytes.length <= markEnd ||
      bytes.length > markEnd + MAX_PLACE_LENGTH
    ) {
      refuse(offset, "bad-length", `HELLO with a disk's mark of ${bytes.length} bytes`);
    }
    const text = new TextDecoder();
    const name = text.decode(bytes.subarray(1, nameEnd));
    const place = text.decode(bytes.subarray(markEnd));
    if (!PRINTABLE.test(name) || !PRINTABLE.test(place)) {
      refuse(offset, "bad-value", "HELLO with a disk's mark that is no text");
    }
    if (marks.has(name)) refuse(offset, "bad-value", `HELLO with two marks of disk ${name}`);
    marks.set(name, { name, mark: bytes.slice(nameEnd, markEnd), place });
  }
  return [...marks.values()];
}
