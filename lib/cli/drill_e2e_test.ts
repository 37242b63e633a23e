import assert from "node:assert/strict";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { interruptDrill, runDrill, testWithClient } from "./testing/run_drill.ts";

Deno.test("e2e: the drill holds without a client", async () => {
  const { form, runs } = await runDrill(
    ...["--seconds", "1", "--memory", "192", "--form", "memory"],
  );
  assert.equal(form, "memory");
  assert.deepEqual(runs.map(({ syncs }) => syncs > 5), [true]);
});

testWithClient("the drill with a client outside holds", async () => {
  const { form, runs } = await runDrill("--seconds", "1");
  assert.equal(form, "client");
  const [{ case: plan, outageMs, syncs }] = runs;
  assert.equal(plan!.fault, "primary");
  assert.ok(outageMs! > 0 && syncs > 5, `${outageMs} ms, ${syncs} syncs`);
});

Deno.test("the drill without a client refuses what needs one", async () => {
  for (const options of [["--fault", "link"], ["--devices", "all"], ["--commit", "sync"]]) {
    await using drill = new KemariProcess(["drill", "--form", "memory", ...options]);
    const { code, stderr } = await drill.ended(20_000);
    assert.equal(code, 2, stderr);
    assert.match(stderr, /--form memory has no disk and no NIC/);
  }
});

Deno.test("e2e: a drill that is interrupted leaves nothing behind", async () => {
  await interruptDrill(/drill: protected/);
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
    await using json = new KemariProcess(["drill", "--log-format", "json"], {
      before: `export XDG_CACHE_HOME='${cache}' KEMARI_QEMU=/nonexistent/qemu;`,
    });
    const lines = (await json.ended(60_000)).stderr.trimEnd().split("\n");
    assert.ok(lines.length > 3, "what it does is told");
    for (const line of lines) assert.match(JSON.parse(line).logger, /^kemari/);
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
});
