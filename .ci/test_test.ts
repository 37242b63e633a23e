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

Deno.test("a signal to the test command ends what it runs, and removes its folder", async () => {
  const temporary = await Deno.makeTempDir({ prefix: "kemari-test-signal-" });
  try {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", ".ci/test.ts", "--unit"],
      cwd: new URL("../", import.meta.url),
      env: { TMPDIR: temporary },
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const said = command.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (!text.includes("[1/")) text += (await said.read()).value;
    // The step has begun, or is about to.
    command.kill("SIGINT");
    while (true) {
      const { value, done } = await said.read();
      if (done) break;
      text += value;
    }
    // Nothing holds its stdout any more, so nothing of it is left.
    assert.match(text, /ended by SIGINT/);
    assert.equal((await command.status).code, 130);
    assert.deepEqual([...Deno.readDirSync(temporary)], []);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
});
