/** VMs behind `kemari send --qmp` that somebody has paused, or that sleep: not kemari's to wake. */
import assert from "node:assert/strict";
import { sideBySide } from "../lab/testing/side_by_side.ts";
import { BarePair } from "../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../lab/testing/eager_secondary.ts";
import { until } from "../lab/program/until.ts";
import { FROM_SOURCE } from "../lab/program/kemari_process.ts";
import { migrateStopped } from "../lab/vms/stopped_migration.ts";
import { delay } from "./system/delay.ts";
import { QmpClient } from "./vm/qmp_client.ts";

/** Longer than anything would need that lets the VM go on. */
const A_WHILE_MS = 700;
/** A VM that is about to be stopped for a checkpoint is let run behind it all the same. */
const TRIES = 6;

/** A NIC through kemari, at `net`. */
const nicAt = (net: string) => [
  ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${net},reconnect-ms=50`],
  ...["-device", "e1000,netdev=n0,id=net0,romfile="],
];

/** Takes what the NIC says. */
async function listenTo(world: Deno.UnixListener): Promise<void> {
  for await (const connection of world) {
    connection.readable.pipeTo(new WritableStream()).catch(() => {});
  }
}

/**
 * A VM whose stream `kemari send --qmp` has, and a monitor of the test's own.
 *
 * @param intervalMs Between two checkpoints of QEMU's own.
 * @param net Where a NIC goes through kemari, if one does; it asks for checkpoints too.
 * @param hasMonitor Whether kemari's monitor is free from the beginning, or not before `letIn`.
 */
async function sending(intervalMs: number, net?: string, hasMonitor = true) {
  const pair = await BarePair.boot("11.1", {
    accelerator: "tcg",
    timer: "apic",
    args: net === undefined ? [] : nicAt(net),
  });
  const { folder } = pair;
  const world = Deno.listen({ transport: "unix", path: `${folder}/out` });
  pair.own({ [Symbol.asyncDispose]: () => Promise.resolve(world.close()) });
  listenTo(world).catch(() => {});
  const secondary = await EagerSecondary.start(
    pair,
    ...(net === undefined ? [] : ["--net", `net0=unix:${folder}/net,unix:${folder}/out`]),
  );
  const qmp = pair.own(await QmpClient.connect(pair.primary.qmpPath));
  await qmp.execute("migrate-set-capabilities", {
    capabilities: ["return-path", "x-colo"].map((capability) => ({ capability, state: true })),
  });
  await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": intervalMs });
  const send = ["send", pair.link, "--control", pair.sendControl];
  const monitor = ["--qmp", pair.primary.spareQmpPath];
  const tap = net === undefined ? [] : ["--net", `net0=unix:${net},unix:${folder}/out`];
  const command = [...FROM_SOURCE, ...send, ...monitor, ...tap].join(" ");
  // QEMU greets one client at a time.
  const first = hasMonitor ? undefined : await QmpClient.connect(pair.primary.spareQmpPath);
  const letIn = async () => await first?.close();
  pair.own({ [Symbol.asyncDispose]: letIn });
  await migrateStopped(qmp, `exec:exec ${command} 2> ${folder}/log`);
  await pair.syncs(1);
  const status = async () => (await qmp.execute("query-status") as { status: string }).status;
  const said = () => Deno.readTextFileSync(`${folder}/log`);
  return { pair, secondary, qmp, status, said, letIn };
}

type Scene = Awaited<ReturnType<typeof sending>>;

async function pause({ qmp, status }: Scene): Promise<void> {
  for (let i = 0; i < TRIES; i++) {
    await qmp.execute("stop");
    await delay(A_WHILE_MS);
    if (await status() === "paused") return;
  }
  assert.fail("the VM was woken each time that it was paused");
}

/** Suspends the guest, rarely at a checkpoint: behind one nobody can help it. */
async function suspend({ pair, qmp }: Scene): Promise<void> {
  const asleep = qmp.waitEvent("SUSPEND", 60_000);
  await pair.primary.ask("suspend");
  await asleep;
}

async function wake({ pair, qmp }: Scene): Promise<void> {
  await qmp.execute("system_wakeup");
  await pair.assertRunning(pair.primary);
  assert.ok((await pair.primary.verify()).ok);
}

sideBySide("e2e: a VM behind kemari send that somebody has paused, or that sleeps", (scene) => {
  scene("kemari send does not wake a VM that is paused, and protects it on", async () => {
    const vm = await sending(50);
    await using pair = vm.pair;
    await pause(vm);
    const { syncs } = await pair.syncs(1);
    await delay(A_WHILE_MS);
    assert.equal((await pair.syncs(1)).syncs, syncs, "nothing to synchronize");
    assert.equal(await vm.status(), "paused");
    await vm.qmp.execute("cont");
    await pair.syncs(syncs + 5);
    await pair.assertRunning(pair.primary);
    assert.match(vm.said(), /the VM is paused, and is synchronized when it runs again/);
    assert.ok(!vm.secondary.hasFenced);
  });

  scene(
    "what a paused VM's NIC says neither wakes it nor keeps it from being protected on",
    async () => {
      const net = await Deno.makeTempFile({ prefix: "kemari-net-" });
      await Deno.remove(net);
      // Whatever asks for a checkpoint is the NIC.
      const vm = await sending(60_000, net);
      await using pair = vm.pair;
      const { qmp } = vm;
      const announce = () =>
        qmp.execute("announce-self", { initial: 50, max: 50, rounds: 2, step: 50 });
      const { syncs } = await pair.syncs(1);
      await announce();
      await pair.syncs(syncs + 1);
      await pause(vm);
      const before = (await pair.syncs(1)).syncs;
      for (let i = 0; i < 3; i++) {
        await announce();
        await delay(A_WHILE_MS);
        assert.equal(await vm.status(), "paused");
      }
      assert.equal((await pair.syncs(1)).syncs, before);
      await qmp.execute("cont");
      await pair.syncs(before + 1);
      await announce();
      await pair.syncs(before + 2);
      await pair.assertRunning(pair.primary);
    },
  );

  scene("a VM that was paused before kemari send had its monitor is not woken either", async () => {
    const vm = await sending(60_000, undefined, false);
    await using pair = vm.pair;
    const { qmp } = vm;
    await until(async () => await vm.status() === "running", "COLO to begin");
    await qmp.execute("stop");
    await vm.letIn();
    await delay(A_WHILE_MS);
    // This asks for a checkpoint.
    await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": 60_000 });
    await until(() => /the VM is paused, and is/.test(vm.said()), "kemari to hear of it");
    await delay(A_WHILE_MS);
    assert.equal(await vm.status(), "paused");
    await qmp.execute("cont");
    await pair.syncs(2);
    await pair.assertRunning(pair.primary);
  });

  scene("a VM that was paused behind kemari send stays so when the secondary is lost", async () => {
    const vm = await sending(50);
    await using pair = vm.pair;
    await pause(vm);
    vm.secondary.recv.signal("SIGKILL");
    await until(() => /the VM is paused, unprotected/.test(vm.said()), "kemari to let the VM go");
    await delay(A_WHILE_MS);
    assert.equal(await vm.status(), "paused");
    await vm.qmp.execute("cont");
    await pair.assertRunning(pair.primary);
  });

  scene(
    "a guest that suspends itself behind kemari send sleeps, and is protected on when it wakes",
    async () => {
      const vm = await sending(1000);
      await using pair = vm.pair;
      await suspend(vm);
      await delay(2 * A_WHILE_MS);
      assert.equal(await vm.status(), "suspended");
      const { syncs } = await pair.syncs(1);
      await wake(vm);
      await pair.syncs(syncs + 2);
      assert.ok(!vm.secondary.hasFenced);
    },
  );

  scene(
    "a guest that sleeps when the secondary is lost sleeps on; its QEMU is told when it wakes",
    async () => {
      const vm = await sending(1000);
      await using pair = vm.pair;
      await suspend(vm);
      vm.secondary.recv.signal("SIGKILL");
      await until(() => /QEMU is told that it is unprotected when/.test(vm.said()), "the loss");
      await delay(A_WHILE_MS);
      assert.equal(await vm.status(), "suspended");
      await wake(vm);
      await until(() => /the VM is running, unprotected/.test(vm.said()), "kemari to tell QEMU");
      await pair.assertRunning(pair.primary);
    },
  );
});
