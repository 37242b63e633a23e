import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { decodeHelloFields, encodeHelloFields, HELLO_FIELD } from "../txn/hello_fields.ts";
import { decodeVm, encodeVm, plainVmName } from "./vm_fields.ts";

const digits = (digit: string) => digit.repeat(32);
const WHOLE = { uuid: digits("a"), name: "väm 1", process: digits("b"), shape: digits("c") };

Deno.test("a VM's identity survives HELLO, whatever of it is known", () => {
  for (let known = 0; known < 16; known++) {
    const vm = Object.fromEntries(Object.entries(WHOLE).filter((_, i) => known >> i & 1));
    const bytes = encodeHelloFields(encodeVm(vm));
    assert.deepEqual(decodeVm(decodeHelloFields(bytes, 0, 0), 0), vm);
  }
});

Deno.test("fields that a later version adds are passed over", () => {
  const more = { tag: 9999, bytes: new Uint8Array(7) };
  assert.deepEqual(decodeVm([more, ...encodeVm(WHOLE), more], 0), WHOLE);
});

Deno.test("fields that are cut anywhere are refused, and so are those that are none", () => {
  const fields = encodeVm(WHOLE);
  const bytes = encodeHelloFields(fields);
  const ends = new Set([0]);
  for (let end = 0, i = 0; i < fields.length; i++) ends.add(end += 4 + fields[i].bytes.length);
  for (let length = 0; length <= bytes.length; length++) {
    if (ends.has(length)) decodeHelloFields(bytes.subarray(0, length), 0, 0);
    else {
      assert.throws(
        () => decodeHelloFields(bytes.subarray(0, length), 0, 100),
        (error) =>
          error instanceof WireError && error.fault === "bad-length" && error.offset >= 100,
        `${length}`,
      );
    }
  }
  const name = (text: string) => ({
    tag: HELLO_FIELD.vmName,
    bytes: new TextEncoder().encode(text),
  });
  const bad: [string, Parameters<typeof decodeVm>[0], string][] = [
    ["twice", [...fields, fields[0]], "bad-value"],
    ["short", [{ tag: HELLO_FIELD.vmUuid, bytes: new Uint8Array(15) }], "bad-length"],
    ["no name", [name("")], "bad-length"],
    ["too long a name", [name("x".repeat(201))], "bad-length"],
    ["a name that moves the cursor", [name("a\x1b[2J")], "bad-value"],
    ["no UTF-8", [{ tag: HELLO_FIELD.vmName, bytes: Uint8Array.of(0x61, 0xff) }], "bad-value"],
  ];
  for (const [what, given, fault] of bad) {
    assert.throws(() => decodeVm(given, 0), (error) => (error as WireError).fault === fault, what);
  }
});

Deno.test("a name is told and kept so that all of it can be seen, and cut between characters", () => {
  assert.equal(plainVmName("a\nb\x7f\u202e"), "a\\nb\\u{7f}\\u{202e}");
  const long = plainVmName("ä".repeat(150));
  assert.equal(long, "ä".repeat(100));
  assert.equal(plainVmName("x" + "ä".repeat(150)), "x" + "ä".repeat(99));
  assert.deepEqual(
    decodeVm(encodeVm({ name: "x" + "ä".repeat(150) }), 0).name,
    "x" + "ä".repeat(99),
  );
});
