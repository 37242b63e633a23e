import assert from "node:assert/strict";
import { WriteThrottle } from "./write_throttle.ts";

Deno.test("below the limit nothing waits", () => {
  const throttle = new WriteThrottle(1000);
  for (let now = 0; now < 100; now++) assert.equal(throttle.ready(999, now), true);
  assert.deepEqual([throttle.waits, throttle.waitedMs], [0, 0]);
});

Deno.test("above it requests are taken in bursts, the rarer the more is held", () => {
  const bursts = (heldBytes: number) => {
    const throttle = new WriteThrottle(1000);
    let count = 0;
    let was = false;
    for (let now = 0; now < 1000; now++) {
      const is = throttle.ready(heldBytes, now);
      if (is && !was) count++;
      was = is;
    }
    return count;
  };
  assert.ok(bursts(1000) > 80, `${bursts(1000)}`);
  assert.ok(bursts(1500) < bursts(1000) && bursts(1500) > bursts(2000));
  assert.equal(bursts(2000), 3);
  assert.equal(bursts(100_000), 3, "none waits longer than a quarter of a second for the next");
});

Deno.test("a checkpoint's drain is never kept waiting", () => {
  const throttle = new WriteThrottle(1000);
  assert.equal(throttle.ready(5000, 0), false);
  throttle.stopping();
  assert.equal(throttle.ready(5000, 1), true);
  assert.equal(throttle.waitedMs, 1);
  throttle.stopped();
  assert.equal(throttle.ready(5000, 2), false);
});

Deno.test("without a word of the checkpoint a drain of any length still ends", () => {
  const throttle = new WriteThrottle(1000);
  let left = 256;
  let now = 0;
  for (; left > 0 && now < 1e6; now++) if (throttle.ready(1e9, now)) left--;
  assert.equal(left, 0);
});
