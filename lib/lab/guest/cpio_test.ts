import assert from "node:assert/strict";
import { StateError } from "../../errors.ts";
import { type CpioEntry, encodeCpio } from "./cpio.ts";

/** An independent reader: what the kernel would see. */
function decodeCpio(bytes: Uint8Array): { name: string; mode: number; data: Uint8Array }[] {
  const text = new TextDecoder();
  const members = [];
  for (let at = 0;;) {
    assert.equal(text.decode(bytes.subarray(at, at + 6)), "070701");
    const field = (index: number) =>
      parseInt(text.decode(bytes.subarray(at + 6 + index * 8, at + 14 + index * 8)), 16);
    const [mode, size, nameSize] = [field(1), field(6), field(11)];
    const name = text.decode(bytes.subarray(at + 110, at + 110 + nameSize - 1));
    assert.equal(bytes[at + 110 + nameSize - 1], 0);
    const dataAt = (at + 110 + nameSize + 3) & ~3;
    if (name === "TRAILER!!!") {
      assert.equal((dataAt + size + 3) & ~3, bytes.length);
      return members;
    }
    members.push({ name, mode, data: bytes.slice(dataAt, dataAt + size) });
    at = (dataAt + size + 3) & ~3;
  }
}

const ENTRIES: CpioEntry[] = [
  { kind: "folder", path: "dev" },
  { kind: "device", path: "dev/console", major: 5, minor: 1 },
  { kind: "file", path: "init", data: new Uint8Array([1, 2, 3, 4, 5]), mode: 0o755 },
  { kind: "file", path: "empty", data: new Uint8Array(0) },
  { kind: "symlink", path: "sh", target: "busybox" },
];

Deno.test("encodeCpio writes members that another reader finds, in order", () => {
  const members = decodeCpio(encodeCpio(ENTRIES));
  assert.deepEqual(
    members.map(({ name, mode }) => [name, mode.toString(8)]),
    [["dev", "40755"], ["dev/console", "20600"], ["init", "100755"], ["empty", "100644"], [
      "sh",
      "120777",
    ]],
  );
  assert.deepEqual(members[2].data, new Uint8Array([1, 2, 3, 4, 5]));
  assert.equal(new TextDecoder().decode(members[4].data), "busybox");
});

Deno.test("encodeCpio gives the same bytes for the same entries", () => {
  assert.deepEqual(encodeCpio(ENTRIES), encodeCpio(ENTRIES));
});

Deno.test("encodeCpio keeps names and data of every length aligned", () => {
  for (let length = 0; length < 9; length++) {
    const data = new Uint8Array(length).fill(7);
    const path = "n".repeat(length + 1);
    const [member] = decodeCpio(encodeCpio([{ kind: "file", path, data }]));
    assert.equal(member.name, path);
    assert.deepEqual(member.data, data);
  }
});

Deno.test("encodeCpio refuses absolute and repeated paths", () => {
  assert.throws(() => encodeCpio([{ kind: "folder", path: "/dev" }]), StateError);
  assert.throws(
    () => encodeCpio([{ kind: "folder", path: "a" }, { kind: "folder", path: "a" }]),
    StateError,
  );
});
