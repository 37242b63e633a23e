/** Every fault, device model and way of protecting, rehearsed for a second each. */
import assert from "node:assert/strict";
import { interruptDrill, runDrill, testWithClient } from "./testing/run_drill.ts";

Deno.test("e2e: the drill holds again and again without a client, at the same time too", async () => {
  const options = ["--runs", "3", "--jobs", "2", "--seconds", "1", "--memory", "192"];
  const { form, runs } = await runDrill("--form", "memory", ...options);
  assert.equal(form, "memory");
  assert.deepEqual(runs.map(({ syncs }) => syncs > 5), [true, true, true]);
});

testWithClient("the drill with a client outside holds for every fault", async () => {
  const { form, runs, said } = await runDrill("--fault", "all", "--seconds", "1");
  assert.equal(form, "client");
  assert.equal(said.match(/starting the booted primary/g)?.length, 5, said);
  const faults = runs.map((run) => run.case!.fault);
  assert.deepEqual(faults, ["primary", "sender", "link", "receiver", "copy", "apply"]);
  for (const { case: plan, outageMs, syncs } of runs) {
    if (plan!.fault === "copy") continue;
    assert.ok(outageMs! > 0 && syncs > 5, `${plan!.fault}: ${outageMs} ms, ${syncs} syncs`);
  }
});

testWithClient(
  "the drill holds for other device models, in runs at the same time that go on from one boot each",
  async () => {
    const { runs, said, boot, jobs } = await runDrill(
      ...["--devices", "e1000-ahci,virtio-scsi", "--runs", "2", "--jobs", "2", "--seconds", "1"],
    );
    assert.deepEqual([boot, jobs], ["once", 2]);
    assert.equal(said.match(/booting a \S+ VM once/g)?.length, 2, said);
    assert.equal(said.match(/starting the booted primary/g)?.length, 4, said);
    // The second begins before the first has been looked at.
    const [second, verdict] = [/run 2 of 4/, /run 1: held/].map((line) => said.search(line));
    assert.ok(second >= 0 && second < verdict, said);
    assert.deepEqual(runs.map(({ run }) => run), [1, 2, 3, 4]);
    const devices = ["e1000-ahci", "virtio-scsi"];
    assert.deepEqual(runs.map((run) => run.case!.devices), [...devices, ...devices]);
  },
);

testWithClient("the drill holds for a shared disk, committed synchronously", async () => {
  const { runs } = await runDrill(
    ...["--fault", "primary,link", "--seconds", "1"],
    ...["--disk-mode", "shared", "--commit", "sync"],
  );
  assert.deepEqual(runs.map((run) => run.case!.diskMode), ["shared", "shared"]);
});

testWithClient("takeovers back and forth keep the client's connection", async () => {
  const { runs } = await runDrill("--ping-pong", "3", "--seconds", "1");
  assert.deepEqual(runs.map(({ run }) => run), [1, 2, 3]);
  for (const { lastCount, firstCount, outageMs } of runs) {
    assert.equal(firstCount, lastCount + 1);
    assert.ok(outageMs! > 0);
  }
});

testWithClient(
  "a drill that is interrupted in two runs, or before, leaves nothing behind",
  async () => {
    await interruptDrill(/VM once/, "--runs", "3", "--jobs", "2");
    await interruptDrill(/run 2: protected/, "--runs", "3", "--jobs", "2");
  },
);
