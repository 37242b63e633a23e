import assert from "node:assert/strict";
import { HEADER_BYTES, PAGE_BYTES, scattered, writeWays } from "./writev.ts";
import { cString, libc } from "../lib/host/system/libc.ts";

Deno.test("every way writes the same bytes", async () => {
  const memory = crypto.getRandomValues(new Uint8Array(16 * PAGE_BYTES));
  const pieces = scattered(memory, 100);
  const expected = new Uint8Array(100 * (HEADER_BYTES + PAGE_BYTES));
  let at = 0;
  for (const piece of pieces) {
    expected.set(piece, at);
    at += piece.length;
  }
  assert.equal(at, expected.length);
  const path = await Deno.makeTempFile();
  try {
    for (const { name, send } of writeWays()) {
      const fd = libc().open(cString(path), 0o1001, 0); // O_WRONLY | O_TRUNC
      send(fd, pieces);
      libc().close(fd);
      assert.deepEqual(await Deno.readFile(path), expected, name);
    }
  } finally {
    await Deno.remove(path);
  }
});
