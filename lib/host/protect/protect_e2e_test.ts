import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { failover, ProtectedPair } from "../../lab/testing/protected_pair.ts";
import type { BareVm } from "../../lab/bare_guest/bare_vm.ts";
import type { KemariPair } from "../../lab/testing/kemari_pair.ts";
import type { Vm } from "../../lab/vms/vm.ts";
import { migrateStopped, resumeArrived } from "../../lab/vms/stopped_migration.ts";
import { FROM_SOURCE } from "../../lab/program/kemari_process.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

/** A guest without Linux, for what is not about one. */
const BARE = { accelerator: "tcg", timer: "apic" } as const;

Deno.test("e2e: COLO over protect: the guest goes on from the last committed transaction", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  const recv = await pair.recv();
  const secondary = await pair.secondary();
  const protect = pair.protect("--sync-interval", "20");
  const status = await pair.syncs(50);
  assert.equal(status.mode, "colo");
  await pair.primary.powerCut();
  assert.equal((await protect.ended()).code, 4);
  await failover(pair);
  assert.equal((await recv.ended()).code, 0);
  await pair.assertTakenOver(secondary);
});

Deno.test("e2e: a QEMU whose own timer does not fire is asked for checkpoints", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  await pair.recv();
  await pair.secondary();
  pair.protect("--sync-interval", "50");
  const { syncs } = await pair.syncs(10);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  // As it is when the host's clock, by which it goes, has been set back.
  await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": 3_600_000 });
  await pair.syncs(syncs + 20);
});

Deno.test("e2e: a lost secondary does not stop the VM, and another one is protected again", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  const recv = await pair.recv();
  await pair.secondary();
  const protect = pair.protect("--sync-interval", "20", "--commit", "sync");
  await pair.syncs(20);
  recv.signal("SIGKILL");
  await pair.senderIs("unprotected");
  await pair.assertRunning(pair.primary);
  await pair.recv();
  const secondary = await pair.secondary();
  await pair.senderStatus(({ state, syncs }) => state === "synchronizing" && syncs >= 10);
  await pair.primary.powerCut();
  assert.equal((await protect.ended()).code, 4);
  await failover(pair);
  await pair.assertTakenOver(secondary);
});

Deno.test("e2e: a sender that comes back sends only what the replica lacks", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  // An operator who ends the protection does not want a second VM: this is no loss.
  await pair.recv("--on-loss", "activate", "--fence", "none");
  await pair.secondary();
  const first = pair.protect("--sync-interval", "20");
  const before = await pair.syncs(10);
  first.signal("SIGINT");
  assert.equal((await first.ended()).code, 130);
  await pair.receiverStatus(({ state }) => state === "waiting");
  await pair.assertRunning(pair.primary);
  pair.protect("--sync-interval", "20");
  const after = await pair.syncs(10);
  assert.ok(after.lastCommitted > before.lastCommitted, "the transactions are counted on");
  assert.ok(after.unchangedPages > before.pages / 2, `${after.unchangedPages} pages left out`);
  assert.ok(after.payloadBytes < before.payloadBytes / 2, `${after.payloadBytes} bytes sent`);
});

Deno.test("e2e: a killed kemari protect does not leave the VM stopped", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  await pair.recv();
  await pair.secondary();
  const protect = pair.protect("--sync-interval", "5");
  await pair.syncs(20);
  protect.signal("SIGKILL");
  await protect.ended();
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  await until(async () => {
    const { status } = await qmp.execute("query-migrate") as { status: string };
    return status !== "colo";
  }, "COLO to end");
  await pair.assertRunning(pair.primary);
});

/** A connection that notes each event by its name and status. */
async function listening(path: string): Promise<{ qmp: QmpClient; events: string[] }> {
  const qmp = await QmpClient.connect(path);
  const events: string[] = [];
  qmp.onEvent(({ name, data }) => {
    events.push(typeof data?.status === "string" ? `${name} ${data.status}` : name);
  });
  return { qmp, events };
}

Deno.test("e2e: under tcg the VM stands still before its RAM is read, until all of it has been", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  await pair.recv();
  await pair.secondary();
  const { qmp, events } = await listening(pair.primary.spareQmpPath);
  pair.protect("--sync-interval", "20");
  await pair.syncs(3);
  await qmp.close();
  const order = ["STOP", "MIGRATION setup", "MIGRATION colo", "RESUME"];
  assert.deepEqual(events.filter((event) => order.includes(event)).slice(0, 4), order);
});

sideBySide("e2e: a VM that stands still to be read goes on", (scene) => {
  for (const what of ["SIGINT", "SIGKILL", "a lost secondary"] as const) {
    scene(`behind ${what}`, async () => {
      await using pair = await ProtectedPair.boot("11.1");
      const recv = await pair.recv();
      await pair.secondary();
      const { qmp, events } = await listening(pair.primary.spareQmpPath);
      const protect = pair.protect("--sync-interval", "20", "--grace", "3s");
      await until(() => events.includes("STOP"), "the VM to be stopped");
      // It cannot be read to its end from here on; silence is a loss in the end, and not yet.
      recv.signal("SIGSTOP");
      await delay(500);
      assert.ok(!events.includes("RESUME"));
      if (what !== "a lost secondary") {
        protect.signal(what);
        await protect.ended();
      }
      await until(() => events.includes("RESUME"), "the VM to go on");
      await pair.assertRunning(pair.primary);
      recv.signal("SIGCONT");
      await qmp.close();
    });
  }
});

Deno.test("e2e: --on-secondary-loss stop leaves the VM stopped, and says so", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  const recv = await pair.recv();
  await pair.secondary();
  const protect = pair.protect("--sync-interval", "20", "--on-secondary-loss", "stop");
  await pair.syncs(10);
  recv.signal("SIGKILL");
  const { code, stderr } = await protect.ended();
  assert.equal(code, 4);
  assert.match(stderr, /the VM is paused/);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  const { running } = await qmp.execute("query-status") as { running: boolean };
  assert.equal(running, false);
});

Deno.test("e2e: COLO over exec: QEMU starts kemari send itself", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  await pair.recv();
  const secondary = await pair.secondary();
  await using qmp = await QmpClient.connect(pair.primary.qmpPath);
  await qmp.execute("migrate-set-capabilities", {
    capabilities: ["return-path", "x-colo"].map((capability) => ({ capability, state: true })),
  });
  await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": 20 });
  const send = [...FROM_SOURCE, "send", pair.link, "--control", pair.sendControl];
  await migrateStopped(qmp, `exec:exec ${send.join(" ")}`);
  const { mode } = await pair.syncs(50);
  assert.equal(mode, "colo");
  await pair.primary.powerCut();
  await pair.receiverStatus(({ state }) => state === "waiting");
  await failover(pair);
  await pair.assertTakenOver(secondary);
});

Deno.test("e2e: QEMU 7.2 is protected by a loop of snapshots", async () => {
  await using pair = await ProtectedPair.boot("7.2");
  await pair.recv();
  const secondary = await pair.secondary();
  const protect = pair.protect("--sync-interval", "50");
  const status = await pair.syncs(8);
  assert.equal(status.mode, "snapshots");
  assert.ok(status.unchangedPages > status.pages, "most pages are not sent again");
  assert.ok(status.pause.count > 0, "pauses are measured");
  await pair.assertRunning(pair.primary);
  await pair.primary.powerCut();
  assert.equal((await protect.ended()).code, 4);
  await failover(pair);
  await pair.assertTakenOver(secondary, 40);
});

/** Hands a VM over by a plain stream. @returns The VM where it runs now. */
async function handOver<V extends Vm | BareVm>(pair: KemariPair<V>): Promise<V> {
  const recv = await pair.recv();
  const secondary = await pair.secondary();
  await using qmp = await QmpClient.connect(pair.primary.qmpPath);
  const send = [...FROM_SOURCE, "send", pair.link];
  await migrateStopped(qmp, `exec:exec ${send.join(" ")}`);
  const { code, stderr } = await recv.ended();
  assert.equal(code, 0, stderr);
  assert.match(stderr, /handover/);
  await resumeArrived("vm" in secondary ? secondary.vm : secondary);
  const { status } = await qmp.execute("query-status") as { status: string };
  assert.equal(status, "postmigrate");
  return secondary;
}

Deno.test("e2e: plain handover 11.1 to 11.1, through exec: on both sides", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  await pair.assertTakenOver(await handOver(pair), 0);
});

Deno.test("e2e: plain handover 7.2 to 7.2, through exec: on both sides", async () => {
  await using pair = await BarePair.boot("7.2", BARE);
  await pair.assertTakenOver(await handOver(pair), 0);
});

Deno.test("e2e: a secondary that is not there ends protect at once, and the VM runs on", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  const { code, stderr } = await pair.protect().ended();
  assert.equal(code, 4);
  assert.match(stderr, /cannot connect: no such file[^]*hint: is `kemari recv` running there/);
  await pair.assertRunning(pair.primary);
});

Deno.test("e2e: kemari failover while the primary is alive stops its VM, then takes over", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  const recv = await pair.recv();
  const secondary = await pair.secondary();
  const protect = pair.protect("--sync-interval", "20");
  await pair.syncs(30);
  await failover(pair);
  const { code, stderr } = await protect.ended();
  assert.equal(code, 3, stderr);
  assert.match(stderr, /the VM is paused[^]*told to take over \(taken-over\)\nhint: /);
  await pair.assertTakenOver(secondary);
  assert.match((await recv.ended()).stderr, /told to stop its VM/);
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  const { running } = await qmp.execute("query-status") as { running: boolean };
  assert.equal(running, false, "only one side runs");
});

Deno.test("e2e: a VM that is paused is waited for, not set running, and protected when it runs", async () => {
  for (const version of ["11.1", "7.2"] as const) {
    await using pair = await BarePair.boot(version, BARE);
    await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
    await qmp.execute("stop");
    await pair.recv();
    await pair.secondary();
    const protect = pair.protect("--sync-interval", "50");
    await protect.waitFor(/The VM stands still \(paused\): it is protected once it runs/);
    await pair.senderIs("waiting for the VM to run");
    const { status } = await qmp.execute("query-status") as { status: string };
    assert.equal(status, "paused");
    await qmp.execute("cont");
    await pair.syncs(3);
  }
});
