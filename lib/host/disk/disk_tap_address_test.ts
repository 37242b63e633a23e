import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { imageUseOf, parseDiskTap } from "./disk_tap_address.ts";

Deno.test("a disk's mode and format may be said, in any order", () => {
  const disk = parseDiskTap("d=/img,unix:/s,format=raw,mode=shared");
  assert.equal(disk.mode, "shared");
  assert.equal(disk.format, "raw");
  assert.deepEqual(imageUseOf(disk), { isShared: true, format: "raw" });
  const plain = parseDiskTap("d=/img,unix:/s");
  assert.deepEqual(imageUseOf(plain), { isShared: false, format: undefined });
});

Deno.test("what is wrong with a disk is said", () => {
  const cases: [string, RegExp][] = [
    ["d=/img", /not have this form/],
    ["d=/img,unix:/s,mode=both", /there is no mode both/],
    ["d=/img,unix:/s,format=qcow2", /format qcow2 cannot be served, only raw/],
    ["d=/img,unix:/s,format=raw,format=raw", /format is given twice/],
    ["d=/img,unix:/s,cache=none", /there is no option cache/],
    ["d=/img,unix:/s,mode", /not have this form/],
  ];
  for (const [text, message] of cases) {
    assert.throws(() => parseDiskTap(text), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, message);
      return true;
    });
  }
});
