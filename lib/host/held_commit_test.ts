/** A commit that is looked at before it is acknowledged. */
import assert from "node:assert/strict";
import { QemuError, WireError } from "../errors.ts";
import { fullStream } from "../qemu/synthetic_stream.ts";
import { never, Stage } from "./link_stage.ts";

Deno.test("nothing is acknowledged, and nobody blamed, until the check is over", async () => {
  let checked = false;
  let checks = 0;
  await using stage = await Stage.open({
    heartbeatMs: 20,
    graceMs: 100,
    mustHold: () => !checked,
    check: async (replica) => {
      checks++;
      assert.equal(replica.committed, 1, "the replica is there to be looked at");
      // Longer than the grace time, in which the sender is not read.
      await new Promise((resolve) => setTimeout(resolve, 400));
      checked = true;
    },
  });
  const link = await stage.send(fullStream(1));
  assert.ok(checked, "the handover waited for the check");
  assert.equal(link.primary.counters.committed, 1);
  assert.equal(await stage.end.receive(never), "handover");
  assert.equal(checks, 1);
});

Deno.test("a check that fails is the sender's refusal, and this end's error", async () => {
  await using stage = await Stage.open({
    mustHold: () => true,
    check: () => Promise.reject(new QemuError("standby", "Mismatch", "not the primary's machine")),
  });
  const ended = assert.rejects(stage.end.receive(never), QemuError);
  await assert.rejects(stage.send(fullStream(1)), (error) => {
    if (error instanceof QemuError) return true; // both ends share a loop here
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, /the receiver refused .*not the primary's machine/);
    return true;
  });
  stage.reactor.wake();
  await ended;
});
