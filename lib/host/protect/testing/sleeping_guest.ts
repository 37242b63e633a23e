/**
 * For tests: guests that suspend themselves to RAM (S3), and what must hold of their protection.
 */
import assert from "node:assert/strict";
import { BarePair, type PairedMachine } from "../../../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../../../lab/testing/eager_secondary.ts";
import { until } from "../../../lab/program/until.ts";
import { delay } from "../../system/delay.ts";
import type { QemuSeries } from "../../../lab/provision/qemu.ts";
import { QmpClient } from "../../vm/qmp_client.ts";

export const TCG: PairedMachine = { timer: "apic", accelerator: "tcg" };
export const KVM: PairedMachine = { timer: "apic", accelerator: "kvm" };

/** How the VM is protected. */
export type Mode = "colo" | "snapshot";

/** A VM, a secondary that takes over at a loss, and a second monitor for the test. */
export async function prepared(version: QemuSeries, machine: PairedMachine) {
  const pair = await BarePair.boot(version, machine);
  const secondary = await EagerSecondary.start(pair);
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  const status = async () => (await qmp.execute("query-status") as { status: string }).status;
  return { pair, secondary, qmp, status };
}

/** Has the guest suspend itself; the guest has done so when this returns. */
export async function suspend(pair: BarePair, qmp: QmpClient): Promise<void> {
  const asleep = qmp.waitEvent("SUSPEND", 60_000);
  await pair.primary.ask("suspend");
  await asleep;
}

/** Wakes the guest, and waits until the guest itself says that it is awake. */
export async function wake(pair: BarePair, qmp: QmpClient): Promise<void> {
  const { lines } = pair.primary.console;
  const awake = () => lines.filter(({ text }) => text.includes("bare guest awake")).length;
  const before = awake();
  await qmp.execute("system_wakeup");
  await until(() => awake() > before, "the guest to say that it is awake");
  assert.equal((await pair.primary.status()).boot, (await pair.primary.verify()).boot);
}

/** Longer than QEMU would need to stop the VM for a checkpoint, and abort. */
export const A_WHILE_MS = 1500;

/** The guest sleeps twice, with a protection before, between and after. */
export async function sleepsAndIsProtectedAgain(
  version: QemuSeries,
  machine: PairedMachine,
  mode: Mode,
): Promise<void> {
  const { pair, secondary, qmp, status } = await prepared(version, machine);
  await using _pair = pair;
  const protect = pair.protect("--mode", mode, "--sync-interval", "1s");
  await pair.syncs(2);
  for (let night = 1; night <= 2; night++) {
    await suspend(pair, qmp);
    await secondary.recv.waitFor(
      /the sender has ended the protection \(the guest sleeps, suspended to RAM\)/,
      60_000,
    );
    await pair.senderIs("suspended");
    await delay(A_WHILE_MS);
    assert.equal(await status(), "suspended");
    await wake(pair, qmp);
    await pair.senderStatus(({ state, syncs }) => state === "synchronizing" && syncs >= 2);
    await pair.assertRunning(pair.primary);
    assert.ok((await pair.primary.verify()).ok);
  }
  assert.ok(!secondary.hasFenced);
  assert.doesNotMatch(protect.stderr, /failover/);
  await pair.primary.kill9();
  await secondary.untilFenced();
}
