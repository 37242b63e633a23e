import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { checkSizes, parseIoSizeBytes, parseRecordSizes } from "./bench.ts";

Deno.test("iozone's sizes are whole blocks, and a record fits into the file", () => {
  assert.equal(parseIoSizeBytes("8M"), 8 * 2 ** 20);
  assert.deepEqual(parseRecordSizes("4k, 64k,4096"), [4096, 65536]);
  for (const text of ["1", "4097", "6K", "5G", "x"]) {
    assert.throws(() => parseIoSizeBytes(text), UsageError, text);
  }
  assert.throws(() => parseRecordSizes("32M"), UsageError);
  checkSizes(65536, [65536]);
  checkSizes(undefined, [65536]);
  assert.throws(() => checkSizes(4096, [65536]), UsageError);
});
