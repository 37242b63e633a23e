import assert from "node:assert/strict";
import type { WireError } from "../../errors.ts";
import { decodeDiskMarks, encodeDiskMark } from "./disk_marks.ts";

const MARK = { name: "disk0", mark: new Uint8Array(16).fill(7), place: "part 1 2 of @" };

Deno.test("disks' marks survive HELLO, among other fields", () => {
  const other = { ...MARK, name: "disk1", place: "@" };
  const fields = [{ tag: 1, bytes: new Uint8Array(16) }, ...[MARK, other].map(encodeDiskMark)];
  assert.deepEqual(decodeDiskMarks(fields, 0), [MARK, other]);
  assert.deepEqual(decodeDiskMarks(undefined, 0), []);
});

Deno.test("a disk's mark that is none is refused", () => {
  const field = encodeDiskMark(MARK);
  const start = field.bytes.length - MARK.place.length;
  for (let length = 0; length <= start; length++) {
    const cut = { ...field, bytes: field.bytes.subarray(0, length) };
    assert.throws(() => decodeDiskMarks([cut], 0), (error) => {
      return (error as WireError).fault === "bad-length";
    }, `${length}`);
  }
  const bad = [
    [[field, field], "bad-value"],
    [[encodeDiskMark({ ...MARK, name: "" })], "bad-value"],
    [[encodeDiskMark({ ...MARK, name: "x".repeat(65) })], "bad-length"],
    [[encodeDiskMark({ ...MARK, place: "a\nb" })], "bad-value"],
    [[encodeDiskMark({ ...MARK, place: "x".repeat(2001) })], "bad-length"],
  ] as const;
  for (const [fields, fault] of bad) {
    assert.throws(() => decodeDiskMarks(fields, 0), (error) => {
      return (error as WireError).fault === fault;
    });
  }
});
