/** Larger worlds than those of model_test.ts: minutes of search. */
import assert from "node:assert/strict";
import { search } from "./testing/search.ts";
import { type Budget, firstWorld, RULES } from "./testing/world.ts";

const WORLDS: readonly (readonly [string, Budget])[] = [
  [
    "three epochs, two cuts, two more generations",
    { epochs: 3, cuts: 2, sessions: 2, timeouts: 1, crashes: 0, boots: 0, handovers: 0 },
  ],
  [
    "deaths, boots, a cut and another secondary",
    { epochs: 2, cuts: 1, sessions: 1, timeouts: 1, crashes: 1, boots: 1, handovers: 0 },
  ],
  [
    "a handover, a cut, a death and another secondary",
    { epochs: 2, cuts: 1, sessions: 1, timeouts: 2, crashes: 1, boots: 0, handovers: 1 },
  ],
];

for (const [of, budget] of WORLDS) {
  Deno.test(`one side speaks, and nothing that was let out is lost, searched for minutes: ${of}`, () => {
    const found = search(firstWorld(budget), RULES, 3_000_000);
    console.log(`${found.states} worlds, ${found.steps} steps`);
    assert.deepEqual({ ...found, states: 0, steps: 0 }, { states: 0, steps: 0 });
  });
}
