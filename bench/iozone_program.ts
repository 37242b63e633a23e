/** iozone in the guest: its command line and its output. */
import { QemuError } from "../lib/errors.ts";

/** One run of iozone: two operations, one after the other. */
interface IozonePart {
  /** iozone's number for the two. */
  readonly test: number;
  readonly operations: readonly [string, string];
}

/** Each part runs alone, so that its time on the host is known. */
export const IOZONE_PARTS: readonly IozonePart[] = [
  { test: 0, operations: ["write", "rewrite"] },
  { test: 1, operations: ["read", "reread"] },
  { test: 2, operations: ["random read", "random write"] },
];

export const IOZONE_OPERATIONS: readonly string[] = IOZONE_PARTS.flatMap(({ operations }) =>
  operations
);

/** Notes on the settings, for the reader. */
export const IOZONE_NOTE =
  "iozone (Debian's iozone3) in the guest, on ext4: -I, that is O_DIRECT, so that the guest's page " +
  "cache hides neither writes nor reads, and -e, so that fsync is part of what is timed";

export const IOZONE_FILE = "/mnt/iozone";

/** The command of a part; the file stays for the next part. */
export function iozoneCommand(test: number, fileBytes: number, recordBytes: number): string {
  const size = `-s ${fileBytes / 1024}k -r ${recordBytes / 1024}k`;
  return `/opt/iozone -I -e -w ${size} -i ${test} -f ${IOZONE_FILE}`;
}

/**
 * Reads the two rates that a part prints after the file's and the record's size.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const text = "   kB  reclen   write  rewrite\n  8192       4    1500     2000\n\niozone test complete.";
 * assert.deepEqual(decodeIozone(text), [1_536_000, 2_048_000]);
 * ```
 *
 * @returns Bytes per second, on the guest's clock.
 * @throws {QemuError} The output has another form.
 */
export function decodeIozone(text: string): [number, number] {
  const row = /^\s*\d+\s+\d+\s+(\d+)\s+(\d+)\s*$/m.exec(text);
  if (row === null || !text.includes("iozone test complete")) {
    throw new QemuError("iozone", "Unexpected", `iozone said: ${text.trim().slice(-400)}`);
  }
  return [Number(row[1]) * 1024, Number(row[2]) * 1024];
}
