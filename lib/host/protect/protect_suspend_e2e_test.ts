/** Guests that suspend themselves to RAM (S3): QEMU cannot be in COLO, or migrate, with one of them. */
import assert from "node:assert/strict";
import { BarePair, type PairedMachine } from "../../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../../lab/testing/eager_secondary.ts";
import { kvmTest } from "../../lab/vms/kvm.ts";
import type { QemuVersion } from "../../lab/provision/qemu.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

const TCG: PairedMachine = { timer: "apic", accelerator: "tcg" };
const KVM: PairedMachine = { timer: "apic", accelerator: "kvm" };

type Mode = "colo" | "snapshot";

/** A VM, a secondary that takes over at a loss, and a monitor of the test's own. */
async function prepared(version: QemuVersion, machine: PairedMachine) {
  const pair = await BarePair.boot(version, machine);
  const secondary = await EagerSecondary.start(pair);
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  const status = async () => (await qmp.execute("query-status") as { status: string }).status;
  return { pair, secondary, qmp, status };
}

async function suspend(pair: BarePair, qmp: QmpClient): Promise<void> {
  const asleep = qmp.waitEvent("SUSPEND", 60_000);
  await pair.primary.ask("suspend");
  await asleep;
}

/** Wakes the guest, and waits until it says so itself. */
async function wake(pair: BarePair, qmp: QmpClient): Promise<void> {
  const { lines } = pair.primary.console;
  const awake = () => lines.filter(({ text }) => text.includes("bare guest awake")).length;
  const before = awake();
  await qmp.execute("system_wakeup");
  await until(() => awake() > before, "the guest to say that it is awake");
  assert.equal((await pair.primary.status()).boot, (await pair.primary.verify()).boot);
}

/** Longer than QEMU would need to stop the VM for a checkpoint, and abort. */
const A_WHILE_MS = 1500;

async function sleepsAndIsProtectedAgain(
  version: QemuVersion,
  machine: PairedMachine,
  mode: Mode,
  intervalMs: number,
): Promise<void> {
  const { pair, secondary, qmp, status } = await prepared(version, machine);
  await using _pair = pair;
  const protect = pair.protect("--mode", mode, "--sync-interval", String(intervalMs));
  await pair.syncs(3);
  for (let night = 1; night <= 2; night++) {
    await suspend(pair, qmp);
    await secondary.recv.waitFor(
      /the sender has ended the protection \(the guest sleeps, suspended to RAM\)/,
      60_000,
    );
    await pair.senderStatus(({ state }) => state === "suspended");
    await delay(A_WHILE_MS);
    assert.equal(await status(), "suspended");
    await wake(pair, qmp);
    await pair.senderStatus(({ state, syncs }) => state === "synchronizing" && syncs >= 3);
    await pair.assertRunning(pair.primary);
    assert.ok((await pair.primary.verify()).ok);
  }
  assert.ok(!secondary.hasFenced);
  assert.doesNotMatch(protect.stderr, /failover/);
  await pair.primary.kill9();
  await secondary.untilFenced();
}

Deno.test("e2e: a guest that suspends itself sleeps, and is protected again when it wakes: 11.1, tcg, colo", () =>
  sleepsAndIsProtectedAgain("11.1", TCG, "colo", 1000));
Deno.test("e2e: a guest that suspends itself sleeps, and is protected again when it wakes: 7.2, tcg, snapshot", () =>
  sleepsAndIsProtectedAgain("7.2", TCG, "snapshot", 1000));

for (
  const [version, mode, machine] of [
    ["11.1", "colo", "pc"],
    ["11.1", "snapshot", "q35"],
    ["10.0", "colo", "q35"],
    ["7.2", "colo", "pc"],
  ] as const
) {
  kvmTest(
    `e2e: a guest that suspends itself sleeps, and is protected again when it wakes: ${version}, kvm, ${mode}, ${machine}`,
    () => sleepsAndIsProtectedAgain(version, { ...KVM, machine }, mode, 1000),
  );
}

Deno.test("e2e: a guest that sleeps already is waited for", async () => {
  for (const [version, mode] of [["11.1", "colo"], ["7.2", "snapshot"]] as const) {
    const { pair, secondary, qmp, status } = await prepared(version, TCG);
    await using _pair = pair;
    await suspend(pair, qmp);
    const protect = pair.protect("--mode", mode, "--sync-interval", "50");
    await protect.waitFor(/The guest sleeps \(suspended to RAM\): it is protected once it wakes/);
    await pair.senderStatus(({ state }) => state === "suspended");
    assert.equal(await status(), "suspended");
    await wake(pair, qmp);
    await pair.syncs(3);
    assert.ok(!secondary.hasFenced);
  }
});

Deno.test("e2e: a sleeping guest is not woken by an interruption of protect; its QEMU is told later", async () => {
  const { pair, secondary, qmp, status } = await prepared("11.1", TCG);
  await using _pair = pair;
  const protect = pair.protect("--sync-interval", "1s");
  await pair.syncs(3);
  await suspend(pair, qmp);
  await pair.senderStatus(({ state }) => state === "suspended");
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
});

Deno.test("e2e: a sleeping VM that is ended ends its protection well", async () => {
  const { pair, secondary, qmp } = await prepared("11.1", TCG);
  await using _pair = pair;
  const protect = pair.protect("--sync-interval", "1s");
  await pair.syncs(3);
  await suspend(pair, qmp);
  await pair.senderStatus(({ state }) => state === "suspended");
  await qmp.execute("quit").catch(() => {});
  const { code, stderr } = await protect.ended();
  assert.equal(code, 0, stderr);
  assert.match(stderr, /the VM has ended: host-qmp-quit/);
  assert.ok(!secondary.hasFenced);
});
