import assert from "node:assert/strict";
import { afterFailedCheck, type FailedCheck, type FailedCheckStep } from "./failed_check.ts";

const FIRST: FailedCheck = { isThere: true, isRoom: false, committed: 0 };

const TABLE: readonly (readonly [string, Partial<FailedCheck>, FailedCheckStep])[] = [
  ["the standby's command is another machine", {}, "end"],
  ["row 10: a device was plugged that the standby has not", { committed: 7 }, "refuse"],
  ["row 11: no room for the first state", { isRoom: true }, "refuse"],
  ["no room for a new image beside the old", { isRoom: true, committed: 7 }, "refuse"],
  ["the sender was lost meanwhile", { isThere: false }, "nothing"],
  ["the same, with an earlier state", { isThere: false, committed: 7 }, "nothing"],
  ["the same, and there was no room", { isThere: false, isRoom: true }, "nothing"],
];

for (const [what, known, wanted] of TABLE) {
  Deno.test(`a check has failed: ${what}: ${wanted}`, () => {
    assert.equal(afterFailedCheck({ ...FIRST, ...known }), wanted);
  });
}
