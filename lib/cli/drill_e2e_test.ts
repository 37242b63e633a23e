import assert from "node:assert/strict";
import { netLabMissing } from "../../fixtures/net_lab.ts";
import { KemariProcess } from "../../fixtures/watched_kemari.ts";
import type { DrillReport } from "../../bench/drill.ts";

async function drillThreeTimes(form: "memory" | "client"): Promise<void> {
  const words = ["drill", "--runs", "3", "--seconds", "3", "--json", "--form", form];
  await using drill = new KemariProcess(words);
  const { code, stdout, stderr } = await drill.ended(180_000);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(new TextDecoder().decode(stdout)) as DrillReport;
  assert.equal(report.held, true);
  assert.equal(report.form, form);
  assert.equal(report.runs.length, 3);
  for (const run of report.runs) {
    assert.ok(run.checks.length >= 5 && run.checks.every(({ held }) => held), stderr);
    assert.ok(run.syncs > 20, `${run.syncs} syncs`);
  }
}

Deno.test("e2e: the drill holds three times", () => drillThreeTimes("memory"));

const missing = await netLabMissing();
Deno.test({
  name: `e2e: the drill with a client outside holds three times${
    missing ? ` SKIP: ${missing}` : ""
  }`,
  ignore: missing !== undefined,
  fn: () => drillThreeTimes("client"),
});

Deno.test("e2e: a drill that is interrupted leaves nothing behind", async () => {
  const temporary = await Deno.makeTempDir({ prefix: "kemari-drill-test-" });
  try {
    await using drill = new KemariProcess(["drill", "--seconds", "60"], {
      before: `export TMPDIR='${temporary}';`,
    });
    await drill.waitFor(/drill: protected/, 60_000);
    drill.signal("SIGINT");
    assert.equal((await drill.ended()).code, 130);
    assert.deepEqual([...Deno.readDirSync(temporary)], []);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
});

Deno.test("where QEMU cannot be had, the drill says so and shows the recorded demonstration", async () => {
  const cache = await Deno.makeTempDir({ prefix: "kemari-empty-cache-" });
  try {
    await using drill = new KemariProcess(["drill"], {
      before: `export XDG_CACHE_HOME='${cache}' KEMARI_QEMU=/nonexistent/qemu;`,
    });
    const { code, stderr } = await drill.ended(60_000);
    assert.equal(code, 5, stderr);
    assert.match(stderr, /no drill on this host: .*\/nonexistent\/qemu/);
    assert.match(stderr, /held: the activated stream .* is the VM as of transaction 6:/);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
});
