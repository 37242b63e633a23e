/** What stops a VM in the middle of a snapshot: its end must not set the VM running again. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../../lab/testing/eager_secondary.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

/** Bytes a second at which a snapshot takes longer than what is to happen in it. */
const SLOW = 100_000;
const FAST = 2 ** 40;
const A_WHILE_MS = 1000;

/** A VM in the live phase of a snapshot, which lasts until {@link finish}. Under TCG there is none. */
async function inSnapshot() {
  const pair = await BarePair.boot("11.1", {
    ...{ timer: "apic", accelerator: "kvm", pages: 64 },
    args: ["-device", "pvpanic", "-device", "ib700", "-action", "panic=pause,watchdog=pause"],
  });
  const secondary = await EagerSecondary.start(pair);
  const protect = pair.protect("--mode", "snapshot", "--sync-interval", "50");
  await pair.syncs(3);
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  const bandwidth = (bytes: number) =>
    qmp.execute("migrate-set-parameters", { "max-bandwidth": bytes });
  const status = async () => (await qmp.execute("query-status") as { status: string }).status;
  const isActive = async () =>
    (await qmp.execute("query-migrate") as { status: string }).status === "active";
  await bandwidth(SLOW);
  // One that was at its end when it became slow is over by the second look.
  await until(async () => {
    if (!await isActive()) return false;
    await delay(500);
    return await isActive();
  }, "a slow snapshot");
  return { pair, secondary, protect, qmp, status, finish: () => bandwidth(FAST) };
}

sideBySide("e2e: what stops a VM in the middle of a snapshot", (scene) => {
  for (
    const [what, state] of [
      ["an operator's stop", "paused"],
      ["a panic", "guest-panicked"],
      ["a watchdog", "watchdog"],
    ] as const
  ) {
    scene(`${what} in the middle of a snapshot is not overruled by its end`, async () => {
      const { pair, secondary, protect, qmp, status, finish } = await inSnapshot();
      await using _pair = pair;
      if (state === "paused") await qmp.execute("stop");
      else pair.primary.ask(state === "watchdog" ? "watchdog" : "panic").catch(() => {});
      await until(async () => await status() === state, `the state ${state}`);
      await finish();
      await protect.waitFor(new RegExp(`the VM was stopped \\(${state}\\)`), 60_000);
      await delay(A_WHILE_MS);
      assert.equal(await status(), "postmigrate");
      assert.ok(!secondary.hasFenced);
      const { syncs } = await pair.syncs(0);
      await qmp.execute("cont");
      await pair.syncs(syncs + 3);
      await pair.assertRunning(pair.primary);
    }, { needsKvm: true });
  }

  scene("a guest that suspends itself in the middle of a snapshot sleeps", async () => {
    const { pair, secondary, protect, qmp, status, finish } = await inSnapshot();
    await using _pair = pair;
    await pair.primary.ask("suspend");
    await secondary.recv.waitFor(/the guest sleeps, suspended to RAM/, 60_000);
    await finish();
    await delay(A_WHILE_MS);
    assert.equal(await status(), "suspended");
    await qmp.execute("system_wakeup");
    await protect.waitFor(/(protected: snapshots follow[^]*){2}/, 60_000);
    await pair.assertRunning(pair.primary);
    assert.ok(!secondary.hasFenced);
  }, { needsKvm: true });

  scene("a guest that powers itself off in the middle of a snapshot has ended", async () => {
    const { pair, secondary, protect } = await inSnapshot();
    await using _pair = pair;
    pair.primary.ask("poweroff").catch(() => {});
    const { code, stderr } = await protect.ended(60_000);
    assert.equal(code, 0, stderr);
    await secondary.recv.waitFor(/the VM was shut down at the primary/);
    assert.ok(!secondary.hasFenced);
  }, { needsKvm: true });
});
