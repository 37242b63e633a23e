/** A real `kemari recv` lives through senders that a seed makes up; `deno task fuzz` has hours of it. */
import assert from "node:assert/strict";
import { FuzzedRecv } from "./fuzzed_recv.ts";

Deno.test("recv lives through a hundred made-up senders, and has no more than before", async () => {
  await using fuzzed = await FuzzedRecv.start(7);
  for (let i = 0; i < 30; i++) await fuzzed.session();
  const before = fuzzed.holdings();
  for (let i = 0; i < 70; i++) await fuzzed.session();
  const after = fuzzed.holdings();
  assert.ok(fuzzed.frames > 500, `${fuzzed.frames} frames`);
  assert.ok(
    after.descriptors <= before.descriptors + 3,
    `${before.descriptors} → ${after.descriptors}`,
  );
  const grownBytes = after.residentBytes - before.residentBytes;
  assert.ok(grownBytes < 64 * 2 ** 20, `${grownBytes} bytes more`);
});
