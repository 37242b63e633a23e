import assert from "node:assert/strict";
import { ShortWait } from "./short_wait.ts";

/** A clock that goes on by a tenth of a millisecond whenever it is read. */
function fakeClock(): { readonly now: () => number; readonly reads: () => number } {
  let reads = 0;
  return { now: () => reads++ / 10, reads: () => reads };
}

Deno.test("a short wait sees what comes within its limit, and gives up behind it", () => {
  const clock = fakeClock();
  const wait = new ShortWait(1, clock.now);
  let looks = 0;
  assert.equal(wait.until(() => ++looks > 5), true);
  assert.equal(wait.until(() => false), false);
  assert.ok(clock.reads() <= 20, "no longer than its limit");
});

Deno.test("a short wait that was in vain is left out until something comes soon again", () => {
  const clock = fakeClock();
  const wait = new ShortWait(1, clock.now);
  assert.equal(wait.until(() => false), false);
  const before = clock.reads();
  let looks = 0;
  assert.equal(wait.until(() => ++looks > 1), false, "one look, and no wait");
  assert.equal(clock.reads(), before);
  wait.tell(5);
  assert.equal(wait.until(() => false), false);
  assert.equal(clock.reads(), before, "what came late is no reason to wait again");
  wait.tell(1.5);
  looks = 0;
  assert.equal(wait.until(() => ++looks > 3), true);
});

Deno.test("what has come already is seen, waits or not", () => {
  const wait = new ShortWait(1, fakeClock().now);
  wait.until(() => false);
  assert.equal(wait.until(() => true), true);
});
