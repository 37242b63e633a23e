import assert from "node:assert/strict";
import { extentOf, runDeno, stepsOf, tallyOf } from "./test.ts";

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

Deno.test("--long runs every end-to-end test once; without it the long ones wait", () => {
  const e2e = ["lib/a_e2e_test.ts", "lib/a_long_e2e_test.ts", "lib/long_e2e_test.ts"];
  const runOf = (extent: "unit" | "usual" | "long") =>
    stepsOf(extent, e2e).map(({ args }) => args.filter((word) => e2e.includes(word)))
      .filter((files) => files.length > 0);
  assert.deepEqual(runOf("unit"), []);
  assert.deepEqual(runOf("usual"), [[e2e[0], e2e[2]]]);
  assert.deepEqual(runOf("long"), [[e2e[0], e2e[2]], [e2e[1]]]);
  for (const extent of ["unit", "usual", "long"] as const) {
    const unit = stepsOf(extent, e2e).find(({ name }) => name.startsWith("unit"))!;
    assert.ok(unit.args.includes(`--ignore=dist,${e2e.join(",")}`), `${unit.args}`);
  }
});

Deno.test("arguments that are not understood are refused", () => {
  assert.deepEqual([[], ["--unit"], ["--long"]].map(extentOf), ["usual", "unit", "long"]);
  for (const args of [["--lnog"], ["--unit", "--long"], ["lib"]]) {
    assert.equal(extentOf(args), undefined, `${args}`);
  }
});

Deno.test("no report counts nothing", () => {
  assert.deepEqual(tallyOf(""), { passed: 0, failed: 0, skipped: [] });
});

Deno.test("a signal ends what a step runs, and the step when that has ended", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-test-signal-" });
  try {
    const file = `${folder}/pid`;
    const code = `Deno.writeTextFileSync("${file}.new", String(Deno.pid));` +
      `Deno.renameSync("${file}.new", "${file}"); setInterval(() => {}, 1000);`;
    const ended = new AbortController();
    const running = runDeno(["eval", code], ended.signal);
    let pid: number | undefined;
    while (pid === undefined) {
      pid = await Deno.readTextFile(file).then(Number, () => undefined);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    ended.abort("SIGINT");
    await assert.rejects(running, (reason) => reason === "SIGINT");
    assert.throws(() => Deno.kill(pid, "SIGCONT"), Deno.errors.NotFound);
    await assert.rejects(runDeno(["eval", ""], ended.signal), (reason) => reason === "SIGINT");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a signal to the test command removes its folder, and is told by its exit code", async () => {
  const temporary = await Deno.makeTempDir({ prefix: "kemari-test-signal-" });
  try {
    const command = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", ".ci/test.ts", "--unit"],
      cwd: new URL("../", import.meta.url),
      env: { TMPDIR: temporary },
      stdout: "piped",
      stderr: "null",
    }).spawn();
    let text = "";
    for await (const part of command.stdout.pipeThrough(new TextDecoderStream())) {
      // The first step has begun, or is about to.
      if (!text.includes("[1/") && (text + part).includes("[1/")) command.kill("SIGINT");
      text += part;
    }
    assert.match(text, /ended by SIGINT/);
    assert.equal((await command.status).code, 130);
    assert.deepEqual([...Deno.readDirSync(temporary)], []);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
});
