import assert from "node:assert/strict";
import { netLabMissing } from "../lab/network/net_lab.ts";
import { KemariProcess } from "../lab/program/watched_kemari.ts";
import type { DrillReport } from "../drill/drill.ts";

/** Runs a drill that must hold. @returns Its report, and what it said meanwhile. */
async function drill(...options: string[]): Promise<DrillReport & { readonly said: string }> {
  await using drill = new KemariProcess(["drill", "--json", ...options]);
  const { code, stdout, stderr } = await drill.ended(240_000);
  assert.equal(code, 0, stderr);
  const report = JSON.parse(new TextDecoder().decode(stdout)) as DrillReport;
  assert.equal(report.held, true);
  for (const { checks } of report.runs) {
    assert.ok(checks.length >= 2 && checks.every(({ held }) => held), stderr);
  }
  assert.ok(report.runs.at(-1)!.checks.length >= 5, stderr);
  return { ...report, said: stderr };
}

Deno.test("e2e: the drill holds three times without a client", async () => {
  const { form, runs } = await drill("--runs", "3", "--seconds", "3", "--form", "memory");
  assert.equal(form, "memory");
  assert.deepEqual(runs.map(({ syncs }) => syncs > 20), [true, true, true]);
});

const missing = await netLabMissing();

function testWithClient(name: string, body: () => Promise<void>) {
  Deno.test({
    name: `e2e: ${name}${missing ? ` SKIP: ${missing}` : ""}`,
    ignore: missing !== undefined,
    fn: body,
  });
}

testWithClient("the drill with a client outside holds for every fault", async () => {
  const { form, runs, said } = await drill("--fault", "all", "--seconds", "1");
  assert.equal(form, "client");
  assert.equal(said.match(/starting the booted primary/g)?.length, 5, said);
  const faults = runs.map((run) => run.case!.fault);
  assert.deepEqual(faults, ["primary", "sender", "link", "receiver", "copy", "apply"]);
  for (const { case: plan, outageMs, syncs } of runs) {
    if (plan!.fault === "copy") continue;
    assert.ok(outageMs! > 0 && syncs > 20, `${plan!.fault}: ${outageMs} ms, ${syncs} syncs`);
  }
});

testWithClient("the drill holds for other device models", async () => {
  const { runs } = await drill("--devices", "e1000-ahci,virtio-scsi", "--seconds", "1");
  assert.deepEqual(runs.map((run) => run.case!.devices), ["e1000-ahci", "virtio-scsi"]);
});

testWithClient(
  "the drill holds for runs at the same time that go on from one boot each",
  async () => {
    const { runs, said, boot, jobs } = await drill(
      ...["--devices", "virtio,e1000-ahci", "--runs", "2", "--jobs", "2", "--seconds", "1"],
    );
    assert.deepEqual([boot, jobs], ["once", 2]);
    assert.equal(said.match(/booting a \S+ VM once/g)?.length, 2, said);
    assert.equal(said.match(/starting the booted primary/g)?.length, 4, said);
    // The second begins before the first has been looked at.
    const [second, verdict] = [/run 2 of 4/, /run 1: held/].map((line) => said.search(line));
    assert.ok(second >= 0 && second < verdict, said);
    assert.deepEqual(runs.map(({ run }) => run), [1, 2, 3, 4]);
    const devices = ["virtio", "e1000-ahci"];
    assert.deepEqual(runs.map((run) => run.case!.devices), [...devices, ...devices]);
  },
);

testWithClient("the drill holds for a shared disk, committed synchronously", async () => {
  const { runs } = await drill(
    ...["--fault", "primary,link", "--seconds", "1"],
    ...["--disk-mode", "shared", "--commit", "sync"],
  );
  assert.deepEqual(runs.map((run) => run.case!.diskMode), ["shared", "shared"]);
});

testWithClient("takeovers back and forth keep the client's connection", async () => {
  const { runs } = await drill("--ping-pong", "3", "--seconds", "1");
  assert.deepEqual(runs.map(({ run }) => run), [1, 2, 3]);
  for (const { lastCount, firstCount, outageMs } of runs) {
    assert.equal(firstCount, lastCount + 1);
    assert.ok(outageMs! > 0);
  }
});

Deno.test("the drill without a client refuses what needs one", async () => {
  for (const options of [["--fault", "link"], ["--devices", "all"], ["--commit", "sync"]]) {
    await using drill = new KemariProcess(["drill", "--form", "memory", ...options]);
    const { code, stderr } = await drill.ended(20_000);
    assert.equal(code, 2, stderr);
    assert.match(stderr, /--form memory has no disk and no NIC/);
  }
});

/** The network namespaces that there are. */
function namespaces(): string[] {
  try {
    return [...Deno.readDirSync("/run/netns")].map(({ name }) => name).sort();
  } catch {
    return [];
  }
}

/** @param line Interrupts it when it has said so. */
async function interrupted(line: RegExp, ...options: string[]): Promise<void> {
  const before = namespaces();
  const temporary = await Deno.makeTempDir({ prefix: "kemari-drill-test-" });
  try {
    await using drill = new KemariProcess(["drill", "--seconds", "60", ...options], {
      before: `export TMPDIR='${temporary}';`,
    });
    await drill.waitFor(line, 60_000);
    drill.signal("SIGINT");
    assert.equal((await drill.ended()).code, 130);
    assert.deepEqual([...Deno.readDirSync(temporary)], []);
    assert.deepEqual(namespaces(), before);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

Deno.test("e2e: a drill that is interrupted leaves nothing behind", async () => {
  await interrupted(/drill: protected/);
});

testWithClient(
  "a drill that is interrupted in two runs, or before, leaves nothing behind",
  async () => {
    await interrupted(/VM once/, "--runs", "3", "--jobs", "2");
    await interrupted(/run 2: protected/, "--runs", "3", "--jobs", "2");
  },
);

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
