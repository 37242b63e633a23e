/** A device that is plugged while the secondary waits: it is told of before it is too late. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { failover } from "../../lab/testing/protected_pair.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { until } from "../../lab/program/until.ts";

const PLUGGED = { driver: "virtio-rng-pci", addr: "0x10", id: "late" };
const SAME_DEVICE = { args: ["-device", "virtio-rng-pci,addr=0x10,id=late"] };
const NAMED = /0000:00:10\.0\/virtio-rng has come/;

function boot() {
  return BarePair.boot("11.1", { accelerator: "tcg", timer: "apic", hz: 100, every: 5 });
}

/** Plugs the device into the running primary. */
async function plug(pair: BarePair): Promise<void> {
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  await qmp.execute("device_add", PLUGGED);
}

/** The same between two snapshots: QEMU allows it only there. */
async function plugBetween(pair: BarePair): Promise<void> {
  await until(() => plug(pair).then(() => true, () => false), "a gap between two snapshots");
}

/** Starts recv anew with a standby that has the device, has it protected, and taken over. */
async function mendAndTakeOver(pair: BarePair, ...options: string[]): Promise<void> {
  const mended = await pair.standby(SAME_DEVICE);
  await pair.recvWithStandby(mended.vm, "--ram-dir", `${pair.folder}/ram`);
  const protect = pair.protect("--sync-interval", "20", ...options);
  await pair.syncs(4);
  await pair.receiverStatus(({ standby }) => standby?.state === "ready");
  await pair.primary.powerCut();
  await protect.ended();
  await failover(pair);
  await pair.assertTakenOver(mended);
  assert.equal((await pair.receiverStatus()).takeover?.mode, "warm");
}

sideBySide("e2e: a device that is plugged while the secondary waits", (scene) => {
  for (const mode of ["colo", "snapshot"] as const) {
    scene(`a device plugged under way is refused by name, and can be mended: ${mode}`, async () => {
      await using pair = await boot();
      const standby = await pair.standby();
      const recv = await pair.recvWithStandby(standby.vm, "--ram-dir", `${pair.folder}/ram`);
      const first = pair.protect("--mode", mode, "--sync-interval", "20");
      await pair.syncs(4);
      await pair.receiverStatus((status) => status.standby?.state === "ready");
      let refused = first;
      if (mode === "colo") {
        await assert.rejects(plug(pair), /not allowed while migrating/);
        first.signal("SIGINT");
        await first.ended();
      }
      const before = await pair.receiverStatus();
      await (mode === "colo" ? plug(pair) : plugBetween(pair));
      if (mode === "colo") refused = pair.protect("--mode", mode);
      const { code, stderr } = await refused.ended(30_000);
      assert.equal(code, 3, stderr);
      assert.match(stderr, /the receiver refused transaction \d+: /);
      if (mode === "snapshot") assert.match(stderr, /the VM has other devices than before: 0000/);
      assert.match(stderr, NAMED);
      await pair.assertRunning(pair.primary);
      // What was acknowledged is there still, and the standby for it.
      const after = await pair.receiverStatus((status) => status.standby?.state === "ready");
      assert.equal(after.state, "waiting");
      if (mode === "colo") assert.equal(after.lastCommitted, before.lastCommitted);
      assert.ok(after.lastCommitted >= before.lastCommitted);
      assert.match(after.deviceChange!, NAMED);
      recv.signal("SIGTERM");
      assert.equal((await recv.ended()).code, 130);
      await mendAndTakeOver(pair, "--mode", mode);
    });
  }

  scene(
    "without a standby a plugged device is warned of, and a QEMU that loads nothing is told",
    async () => {
      await using pair = await boot();
      const recv = await pair.recv("--ram-dir", `${pair.folder}/ram`);
      await pair.secondary();
      const first = pair.protect("--sync-interval", "20");
      await pair.syncs(4);
      first.signal("SIGINT");
      await first.ended();
      await plug(pair);
      const second = pair.protect("--sync-interval", "20");
      await recv.waitFor(NAMED);
      assert.match((await pair.receiverStatus()).deviceChange!, NAMED);
      await pair.syncs(4);
      await pair.primary.powerCut();
      await second.ended();
      await pair.receiverStatus(({ state }) => state === "waiting");
      await assert.rejects(failover(pair));
      const { code, stderr } = await recv.ended();
      assert.equal(code, 5, stderr);
      assert.match(stderr, /the QEMU behind the pipe has ended/);
      assert.match(stderr, /the replica stays for the next kemari recv/);
      // It was not given away: whoever has the device takes it over.
      const mended = await pair.standby(SAME_DEVICE);
      const next = await pair.recvWithStandby(mended.vm, "--ram-dir", `${pair.folder}/ram`);
      await next.waitFor(/going on with transaction \d+/);
      await failover(pair);
      await pair.assertTakenOver(mended);
    },
  );
});
