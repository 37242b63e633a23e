/** How a protection ends, or does not: a QEMU that hangs, one that dies at work, an interruption. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../../lab/testing/eager_secondary.ts";
import { until } from "../../lab/program/until.ts";
import { delay } from "../system/delay.ts";
import type { QemuSeries } from "../../lab/provision/qemu.ts";
import { QmpClient } from "../vm/qmp_client.ts";

/** Longer than any command to QEMU may take. */
const SILENCE_MS = 11_000;
/** Longer than the secondary's grace: who takes it for a loss has begun a takeover. */
const A_WHILE_MS = 3500;

/** A VM, and a secondary that takes over at a loss. */
async function prepared(version: QemuSeries = "11.1") {
  const pair = await BarePair.boot(version, { accelerator: "tcg", timer: "apic" });
  return { pair, secondary: await EagerSecondary.start(pair) };
}

sideBySide("e2e: a QEMU that answers nothing", (scene) => {
  scene("for a while is waited for", async () => {
    const { pair, secondary } = await prepared();
    await using _pair = pair;
    pair.protect("--sync-interval", "5");
    const { syncs } = await pair.syncs(20);
    Deno.kill(pair.primary.pid, "SIGSTOP");
    await delay(SILENCE_MS);
    Deno.kill(pair.primary.pid, "SIGCONT");
    await pair.syncs(syncs + 20);
    await pair.assertRunning(pair.primary);
    assert.ok(!secondary.hasFenced);
  });

  for (const atLoss of ["continue", "stop"]) {
    scene(`at an interruption of protect is freed by its guardian: ${atLoss}`, async () => {
      const { pair, secondary } = await prepared();
      await using _pair = pair;
      const protect = pair.protect("--sync-interval", "5", "--on-secondary-loss", atLoss);
      await pair.syncs(20);
      Deno.kill(pair.primary.pid, "SIGSTOP");
      await delay(200);
      protect.signal("SIGINT");
      await protect.waitFor(/guardian waits to tell it/, 30_000);
      await secondary.recv.waitFor(/the sender has ended the protection/);
      await delay(A_WHILE_MS);
      Deno.kill(pair.primary.pid, "SIGCONT");
      // The guardian has its stderr.
      assert.equal((await protect.ended()).code, 130);
      await pair.assertRunning(pair.primary);
      await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
      await until(async () => {
        const { status } = await qmp.execute("query-migrate") as { status: string };
        return status !== "colo";
      }, "COLO to end");
      assert.ok(!secondary.hasFenced);
    });
  }

  scene("and dies while it is asked something is a loss", async () => {
    const { pair, secondary } = await prepared("7.2");
    await using _pair = pair;
    const protect = pair.protect("--sync-interval", "1s");
    await pair.syncs(3);
    // Most of a round is rest; the next command then waits for its answer.
    Deno.kill(pair.primary.pid, "SIGSTOP");
    await delay(1500);
    await pair.primary.kill9();
    assert.equal((await protect.ended()).code, 4);
    await secondary.recv.waitFor(/primary lost/);
    await secondary.untilFenced();
  });
});

Deno.test("e2e: who interrupts protect wants no takeover, whatever is to happen at a loss", async () => {
  const { pair, secondary } = await prepared();
  await using _pair = pair;
  const protect = pair.protect("--sync-interval", "20", "--on-secondary-loss", "stop");
  await pair.syncs(10);
  protect.signal("SIGINT");
  assert.equal((await protect.ended()).code, 130);
  await secondary.recv.waitFor(/the sender has ended the protection/);
  await pair.assertRunning(pair.primary);
  assert.ok(!secondary.hasFenced);
});

Deno.test("e2e: an interruption that the secondary does not hear of is a loss, where the VM is to stop then", async () => {
  const { pair, secondary } = await prepared();
  await using _pair = pair;
  const protect = pair.protect("--sync-interval", "20", "--on-secondary-loss", "stop");
  await pair.syncs(10);
  secondary.recv.signal("SIGSTOP");
  protect.signal("SIGINT");
  assert.equal((await protect.ended()).code, 130);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  const { status } = await qmp.execute("query-status") as { status: string };
  assert.equal(status, "paused");
  secondary.recv.signal("SIGCONT");
});
