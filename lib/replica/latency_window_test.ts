import assert from "node:assert/strict";
import { LatencyWindow } from "./latency_window.ts";

Deno.test("recent durations are the last ones, oldest first, and the count goes on", () => {
  const window = new LatencyWindow(4);
  assert.deepEqual(window.recent(), { count: 0, ms: [] });
  for (let n = 1; n <= 4; n++) {
    window.add(n);
    assert.deepEqual(window.recent(), {
      count: n,
      ms: Array.from({ length: n }, (_, i) => i + 1),
    });
  }
  window.add(5);
  window.add(6.00049);
  assert.deepEqual(window.recent(), { count: 6, ms: [3, 4, 5, 6] });
  assert.deepEqual(window.summary(), { count: 6, p50: 4, p99: 6.00049, max: 6.00049 });
});
