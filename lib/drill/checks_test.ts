import assert from "node:assert/strict";
import { checkNumbers } from "./checks.ts";

Deno.test("numbers must be all those that were acknowledged, each once and in order", () => {
  const cases: [lines: string, last: number, held: boolean, detail: RegExp][] = [
    ["1\n2\n3\n", 3, true, /3 lines, the last 3/],
    ["1\n2\n", 3, false, /2 lines, the last 2/],
    ["1\n2\n3\n4\n", 3, false, /4 lines, the last 4/],
    ["1\n3\n", 3, false, /line 2 is 3/],
    ["1\n2\n2\n3\n", 3, false, /line 3 is 2/],
    ["2\n1\n3\n", 3, false, /line 1 is 2/],
    ["1\n2x\n3\n", 3, false, /line 2 is NaN/],
    ["", 0, false, /line 1 is 0/],
  ];
  for (const [lines, last, held, detail] of cases) {
    const check = checkNumbers("it", lines, last);
    assert.equal(check.held, held, lines);
    assert.match(check.detail, detail);
  }
});
