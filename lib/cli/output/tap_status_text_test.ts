import assert from "node:assert/strict";
import type { TapStatus } from "../../control/tap_status.ts";
import { tapPairs } from "./tap_status_text.ts";

const NONE = { count: 0, p50: 0, p99: 0, max: 0 };
const latency = (p50: number) => ({ count: 9, p50, p99: 10 * p50, max: 20 * p50 });
const STATUS: TapStatus = {
  nets: {},
  diskHold: NONE,
  latency: {
    net: { trigger: latency(0.5), commit: latency(3), release: latency(0.1) },
    disk: { trigger: NONE, commit: NONE, release: NONE },
  },
  disks: [{
    name: "disk0",
    mode: "replicated",
    sizeBytes: 2 ** 30,
    copied: 0.25,
    resync: { doneBytes: 2 ** 28, equalBytes: 3 * 2 ** 26, sentBytes: 2 ** 26 },
    heldBytes: 2 ** 20,
    unreleasedWrites: 0,
    limitBytes: 2 ** 27,
    throttled: 3,
    throttledMs: 1234,
    stuck: null,
    waiting: 0,
    stalledMs: 0,
  }, {
    name: "disk1",
    mode: "shared",
    sizeBytes: 2 ** 30,
    copied: 1,
    resync: { doneBytes: 0, equalBytes: 0, sentBytes: 0 },
    heldBytes: 8192,
    unreleasedWrites: 2,
    limitBytes: 2 ** 27,
    throttled: 0,
    throttledMs: 0,
    stuck: "cannot write at 0: No space left on device",
    waiting: 0,
    stalledMs: 0,
  }],
};

Deno.test("a resync shows how much was compared and sent, a refusing image why", () => {
  assert.deepEqual(tapPairs(STATUS), [
    ["disk disk0", "25.0 % in step, 1.0 MiB held, 0 writes not in the image"],
    ["  compared", "256 MiB of 1.0 GiB: 192 MiB equal, 64.0 MiB sent (25.0 %)"],
    ["  slowed down", "3 times, 1.2 s, above 128 MiB held"],
    ["disk disk1", "shared, 8.0 KiB held, 2 writes not in the image"],
    ["  STUCK", "cannot write at 0: No space left on device"],
    ["net events", "to their trigger p50 0.50 ms, p99 5.00 ms"],
    ["", "trigger to commit p50 3.00 ms, p99 30.00 ms"],
    ["", "commit to release p50 0.10 ms, p99 1.00 ms"],
  ]);
});
