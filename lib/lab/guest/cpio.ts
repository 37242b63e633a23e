/** Archives in cpio's "newc" format, which the Linux kernel takes as an initramfs. */

import { StateError } from "../../errors.ts";

/** One member of the archive. Paths are relative, without a leading slash. */
export type CpioEntry =
  | { readonly kind: "folder"; readonly path: string }
  | {
    readonly kind: "file";
    readonly path: string;
    readonly data: Uint8Array;
    /** Permission bits; 0o644 if absent. */
    readonly mode?: number;
  }
  | { readonly kind: "symlink"; readonly path: string; readonly target: string }
  | {
    readonly kind: "device";
    readonly path: string;
    readonly major: number;
    readonly minor: number;
  };

const ALIGNMENT = 4;
const TYPE_BITS = { folder: 0o040000, file: 0o100000, symlink: 0o120000, device: 0o020000 };

/**
 * Encodes an archive, trailer included. The same entries always give the same bytes: owner is
 * root, times are zero, inode numbers count up.
 *
 * Wire shape of a member: "070701", then 13 fields of 8 hex digits (inode, mode, uid, gid, links,
 * mtime, size, major, minor, device major, device minor, name length with NUL, checksum 0), the
 * name with NUL, padding to 4, the data, padding to 4.
 *
 * @throws {StateError} If a path is absolute, or listed twice.
 * @see linux Documentation/driver-api/early-userspace/buffer-format.rst
 */
export function encodeCpio(entries: readonly CpioEntry[]): Uint8Array<ArrayBuffer> {
  const seen = new Set<string>();
  const parts: Uint8Array[] = [];
  let inode = 1;
  const text = new TextEncoder();
  const push = (name: string, mode: number, data: Uint8Array, device: readonly number[]) => {
    const nameBytes = text.encode(`${name}\0`);
    const fields = [inode++, mode, 0, 0, 1, 0, data.length, 0, 0, ...device, nameBytes.length, 0];
    const header = "070701" +
      fields.map((field) => field.toString(16).toUpperCase().padStart(8, "0")).join("");
    parts.push(padded([text.encode(header), nameBytes]), padded([data]));
  };
  const empty = new Uint8Array(0);
  for (const entry of entries) {
    if (entry.path.startsWith("/") || entry.path === "" || seen.has(entry.path)) {
      throw new StateError(`cpio: the path ${JSON.stringify(entry.path)} is absolute or repeated`);
    }
    seen.add(entry.path);
    const type = TYPE_BITS[entry.kind];
    switch (entry.kind) {
      case "folder":
        push(entry.path, type | 0o755, empty, [0, 0]);
        break;
      case "file":
        push(entry.path, type | (entry.mode ?? 0o644), entry.data, [0, 0]);
        break;
      case "symlink":
        push(entry.path, type | 0o777, text.encode(entry.target), [0, 0]);
        break;
      case "device":
        push(entry.path, type | 0o600, empty, [entry.major, entry.minor]);
        break;
    }
  }
  inode = 0;
  push("TRAILER!!!", 0, empty, [0, 0]);
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function padded(parts: readonly Uint8Array[]): Uint8Array {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(Math.ceil(length / ALIGNMENT) * ALIGNMENT);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
