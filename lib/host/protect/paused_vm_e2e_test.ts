/** VMs that stand still because somebody, or QEMU itself, has stopped them: not kemari's to wake. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { ProtectedPair } from "../../lab/testing/protected_pair.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

/** A guest without Linux, for what is not about one. */
const BARE = { accelerator: "tcg", timer: "apic" } as const;
type AnyPair = BarePair | ProtectedPair;

/** Longer than anything would need that lets the VM go on. */
const A_WHILE_MS = 700;

async function receiver(pair: AnyPair, ...options: string[]): Promise<KemariProcess> {
  const words = ["recv", pair.link, "--control", pair.recvControl, ...options];
  const recv = pair.own(new KemariProcess(words));
  await recv.listening();
  return recv;
}

async function statusOf(qmp: QmpClient): Promise<string> {
  return (await qmp.execute("query-status") as { status: string }).status;
}

/** Pauses a VM. One that is about to be stopped for a checkpoint is let run behind it all the same. */
async function pause(qmp: QmpClient): Promise<void> {
  await until(async () => {
    await qmp.execute("stop");
    await delay(A_WHILE_MS);
    return await statusOf(qmp) === "paused";
  }, "the VM to stay paused");
}

/** A protected VM that is paused, and what knows of it. */
async function protectedAndPaused(pair: AnyPair) {
  const recv = await receiver(pair);
  const protect = pair.protect("--sync-interval", "50");
  await pair.syncs(5);
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  await pause(qmp);
  await protect.waitFor(/the VM is paused, and is synchronized when it runs again/);
  return { recv, protect, qmp };
}

sideBySide("e2e: a VM that is paused while it is protected stays so", (scene) => {
  for (const version of ["11.1", "7.2"] as const) {
    scene(`and is protected on: ${version}`, async () => {
      await using pair = await BarePair.boot(version, BARE);
      const { qmp } = await protectedAndPaused(pair);
      const { syncs } = await pair.syncs(5);
      await delay(A_WHILE_MS);
      assert.equal((await pair.syncs(5)).syncs, syncs, "nothing to synchronize");
      await qmp.execute("cont");
      await pair.syncs(syncs + 5);
      await pair.assertRunning(pair.primary);
    });
  }

  scene("when the secondary is lost", async () => {
    await using pair = await BarePair.boot("11.1", BARE);
    const { recv, protect, qmp } = await protectedAndPaused(pair);
    recv.signal("SIGKILL");
    await recv.ended();
    await pair.senderIs("unprotected");
    await receiver(pair);
    await protect.waitFor(/The VM stands still \(paused\).*unprotected until then/);
    await pair.senderStatus(({ state }) => state === "waiting for the VM to run");
    await delay(A_WHILE_MS);
    assert.equal(await statusOf(qmp), "paused");
    await qmp.execute("cont");
    await pair.senderStatus(({ state, syncs }) => state === "synchronizing" && syncs >= 5);
    await pair.assertRunning(pair.primary);
  });

  scene("when kemari is killed", async () => {
    await using pair = await BarePair.boot("11.1", BARE);
    const { protect, qmp } = await protectedAndPaused(pair);
    protect.signal("SIGKILL");
    await until(async () => {
      const { status } = await qmp.execute("query-migrate") as { status: string };
      return status !== "colo";
    }, "COLO to end");
    await delay(A_WHILE_MS);
    assert.equal(await statusOf(qmp), "paused");
  });
});

Deno.test("e2e: QEMU lives on when it has paused its VM for a disk that is full", async () => {
  const full = "driver=blkdebug,image.driver=null-co,image.size=8388608,image.read-zeroes=on," +
    "inject-error.0.event=none,inject-error.0.iotype=write,inject-error.0.errno=28";
  await using pair = await ProtectedPair.boot("11.1", [
    ...["-drive", `${full},if=virtio,werror=stop`],
  ]);
  await receiver(pair);
  // Rarely, since a VM that pauses in the moment between QEMU's leave to stop it and its stop
  // makes QEMU abort all the same.
  const protect = pair.protect("--sync-interval", "2s");
  await pair.syncs(2);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  pair.primary.run("echo x | dd of=/dev/vda conv=fsync").catch(() => {});
  const status = () => statusOf(qmp).catch(() => assert.fail(pair.primary.stderr));
  await until(async () => await status() === "io-error", "QEMU to pause its VM");
  await protect.waitFor(/the VM is paused, and/);
  await delay(A_WHILE_MS);
  assert.equal(await status(), "io-error");
});
