import assert from "node:assert/strict";
import { durationsSince } from "./stretch.ts";

Deno.test("of the last durations those count that came since an earlier look", () => {
  const after = { count: 105, ms: [1, 2, 3, 4] };
  assert.deepEqual(durationsSince({ count: 102, ms: [0, 1] }, after), [2, 3, 4]);
  assert.deepEqual(durationsSince({ count: 105, ms: [3, 4] }, after), []);
  // More came than are kept.
  assert.deepEqual(durationsSince({ count: 0, ms: [] }, after), [1, 2, 3, 4]);
  assert.deepEqual(durationsSince(undefined, { count: 2, ms: [7, 8] }), [7, 8]);
  assert.deepEqual(durationsSince({ count: 1, ms: [1] }, undefined), []);
});
