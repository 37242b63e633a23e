/** Guests that suspend themselves to RAM (S3): QEMU cannot be in COLO, or migrate, with one of them. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { until } from "../../lab/program/until.ts";
import { delay } from "../system/delay.ts";
import {
  A_WHILE_MS,
  KVM,
  prepared,
  sleepsAndIsProtectedAgain,
  suspend,
  TCG,
  wake,
} from "./testing/sleeping_guest.ts";

sideBySide("e2e: guests that suspend themselves", (scene) => {
  scene(
    "a guest that suspends itself sleeps, and is protected again when it wakes: 11.1, tcg, colo",
    () => sleepsAndIsProtectedAgain("11.1", TCG, "colo"),
  );
  scene(
    "a guest that suspends itself sleeps, and is protected again when it wakes: 7.2, kvm, colo, pc",
    () => sleepsAndIsProtectedAgain("7.2", KVM, "colo"),
    { needsKvm: true },
  );

  for (const [version, mode] of [["11.1", "colo"], ["7.2", "snapshot"]] as const) {
    scene(`a guest that sleeps already is waited for: ${version}`, async () => {
      const { pair, secondary, qmp, status } = await prepared(version, TCG);
      await using _pair = pair;
      await suspend(pair, qmp);
      const protect = pair.protect("--mode", mode, "--sync-interval", "50");
      await protect.waitFor(/The guest sleeps \(suspended to RAM\): it is protected once it wakes/);
      await pair.senderIs("suspended");
      assert.equal(await status(), "suspended");
      await wake(pair, qmp);
      await pair.syncs(3);
      assert.ok(!secondary.hasFenced);
    });
  }

  scene(
    "a sleeping guest is not woken by an interruption of protect; its QEMU is told later",
    async () => {
      const { pair, secondary, qmp, status } = await prepared("11.1", TCG);
      await using _pair = pair;
      const protect = pair.protect("--sync-interval", "1s");
      await pair.syncs(3);
      await suspend(pair, qmp);
      await pair.senderIs("suspended");
      protect.signal("SIGINT");
      // Its guardian has its stderr, and stays.
      await protect.waitFor(/interrupted by SIGINT/, 30_000);
      await delay(A_WHILE_MS);
      assert.equal(await status(), "suspended");
      await wake(pair, qmp);
      await until(async () => {
        return (await qmp.execute("query-migrate") as { status: string }).status !== "colo";
      }, "the guardian to tell QEMU");
      await pair.assertRunning(pair.primary);
      assert.ok(!secondary.hasFenced);
    },
  );

  scene("a sleeping VM that is ended ends its protection well", async () => {
    const { pair, secondary, qmp } = await prepared("11.1", TCG);
    await using _pair = pair;
    const protect = pair.protect("--sync-interval", "1s");
    await pair.syncs(3);
    await suspend(pair, qmp);
    await pair.senderIs("suspended");
    await qmp.execute("quit").catch(() => {});
    const { code, stderr } = await protect.ended();
    assert.equal(code, 0, stderr);
    assert.match(stderr, /the VM has ended: host-qmp-quit/);
    assert.ok(!secondary.hasFenced);
  });
});
