import assert from "node:assert/strict";
import { HeldBack } from "./held_back.ts";

Deno.test("what is kept is done in order, and what is behind the next look stays behind it", () => {
  const kept = new HeldBack();
  const done: string[] = [];
  let isLooking = false;
  for (const name of ["a", "b", "look", "c", "d"]) {
    kept.add(10, () => {
      done.push(name);
      if (name !== "look") return;
      isLooking = true;
      // As a commit does that is held in turn.
      kept.add(0, () => done.push("committed"));
    });
  }
  kept.run(() => isLooking);
  assert.deepEqual(done, ["a", "b", "look"]);
  isLooking = false;
  kept.run(() => isLooking);
  assert.deepEqual(done, ["a", "b", "look", "committed", "c", "d"]);
  kept.run(() => false);
  assert.equal(done.length, 6);
});

Deno.test("it is full by bytes or by number, and empty when it is cleared or done", () => {
  const kept = new HeldBack();
  kept.add(4 * 2 ** 20 - 100, () => {});
  assert.equal(kept.isFull, false);
  kept.add(0, () => {});
  assert.equal(kept.isFull, true);
  kept.clear();
  assert.equal(kept.isFull, false);
  for (let i = 0; i < 2 ** 16; i++) kept.add(0, () => {});
  assert.equal(kept.isFull, true);
  kept.run(() => false);
  assert.equal(kept.isFull, false);
});
