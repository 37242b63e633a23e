import assert from "node:assert/strict";
import { certificateAge, WARN_S } from "./certificate_age.ts";

const DAY_S = 24 * 3600;

const CASES = [
  { begunS: DAY_S, leftS: 365 * DAY_S, age: "good" },
  { begunS: 0, leftS: WARN_S, age: "good" },
  { begunS: DAY_S, leftS: WARN_S - 1, age: "ends-soon" },
  { begunS: DAY_S, leftS: 0, age: "ends-soon" },
  { begunS: DAY_S, leftS: -1, age: "expired" },
  { begunS: -1, leftS: 365 * DAY_S, age: "not-yet-valid" },
  { begunS: -1, leftS: DAY_S, age: "not-yet-valid" },
] as const;

for (const { begunS, leftS, age } of CASES) {
  Deno.test(`a certificate, ${begunS} s old with ${leftS} s left, is ${age}`, () => {
    assert.equal(certificateAge(begunS, leftS), age);
  });
}
