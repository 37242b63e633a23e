import assert from "node:assert/strict";
import { SeededRandom } from "./seeded_random.ts";

function take(seed: number, count: number): number[] {
  const random = new SeededRandom(seed);
  return Array.from({ length: count }, () => random.below(1000));
}

Deno.test("the same seed gives the same numbers, another one others", () => {
  assert.deepEqual(take(7, 50), take(7, 50));
  assert.notDeepEqual(take(7, 50), take(8, 50));
});

Deno.test("numbers are within their limit, and all choices come up", () => {
  const numbers = take(1, 2000);
  assert.ok(numbers.every((n) => n >= 0 && n < 1000));
  assert.ok(Math.min(...numbers) < 10 && Math.max(...numbers) > 990);
  const random = new SeededRandom(3);
  const picked = new Set(Array.from({ length: 100 }, () => random.pick(["a", "b", "c"])));
  assert.deepEqual([...picked].sort(), ["a", "b", "c"]);
});
