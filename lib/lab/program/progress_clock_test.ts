import assert from "node:assert/strict";
import { ProgressClock } from "./progress_clock.ts";

Deno.test("what is left is estimated from the steps behind", () => {
  let nowMs = 0;
  const clock = new ProgressClock("2 of 3, ", () => nowMs);
  assert.equal(clock.tell("iozone", 0, 4, "write"), "2 of 3, iozone: 1 of 4 (write)");
  nowMs = 60_000;
  assert.equal(
    clock.tell("iozone", 1, 4, "read"),
    "2 of 3, iozone: 2 of 4 (read), about 3 min left",
  );
  nowMs = 80_000;
  assert.match(clock.tell("iozone", 3, 4, "read"), /4 of 4 \(read\), about 27 s left/);
});
