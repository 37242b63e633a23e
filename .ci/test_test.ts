import assert from "node:assert/strict";
import { tallyOf } from "./test.ts";

Deno.test("a JUnit report is counted by case, and skipped cases are named", () => {
  const report = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="deno test" tests="4" failures="1" errors="0" time="0.371">
    <testsuite name="./a_test.ts" tests="4" disabled="1" errors="0" failures="1">
        <testcase name="ok" classname="./a_test.ts" time="0.002" line="1" col="6">
        </testcase>
        <testcase name="ok &gt; step" classname="./a_test.ts" time="0.002" line="1" col="6"/>
        <testcase name="no &lt;tap&gt; here" classname="./a_test.ts" time="0.000">
            <skipped/>
        </testcase>
        <testcase name="bad" classname="./a_test.ts" time="0.001" line="3" col="6">
            <failure message="Uncaught Error: &lt;skipped/&gt;">Error: no</failure>
        </testcase>
    </testsuite>
</testsuites>`;
  assert.deepEqual(tallyOf(report), { passed: 2, failed: 1, skipped: ["no <tap> here"] });
});

Deno.test("no report counts nothing", () => {
  assert.deepEqual(tallyOf(""), { passed: 0, failed: 0, skipped: [] });
});
