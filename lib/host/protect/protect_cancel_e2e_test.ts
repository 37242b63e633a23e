/** Operators who end QEMU's migration under a protection: no death, no second VM, and it begins again. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair, type PairedMachine } from "../../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../../lab/testing/eager_secondary.ts";
import type { QemuSeries } from "../../lab/provision/qemu.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";

const TCG: PairedMachine = { timer: "apic", accelerator: "tcg" };
const KVM: PairedMachine = { timer: "apic", accelerator: "kvm" };

type Mode = "colo" | "snapshot";

/** A protected VM, whose secondary takes over at a loss, and a monitor of the test's own. */
async function prepared(
  version: QemuSeries,
  machine: PairedMachine,
  mode: Mode,
  ...options: string[]
) {
  const pair = await BarePair.boot(version, machine);
  const secondary = await EagerSecondary.start(pair);
  const protect = pair.protect("--mode", mode, "--sync-interval", "20", ...options);
  await pair.syncs(5);
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  const migration = async () => (await qmp.execute("query-migrate") as { status: string }).status;
  const status = async () => (await qmp.execute("query-status") as { status: string }).status;
  return { pair, secondary, protect, qmp, migration, status };
}

type Scene = Awaited<ReturnType<typeof prepared>>;

/** Checks that the VM runs at the primary alone, and that nobody is told otherwise. */
async function isHere({ pair, secondary, protect }: Scene): Promise<void> {
  await secondary.recv.waitFor(
    /the sender has ended the protection \(QEMU's migration was [^)]*\)/,
    30_000,
  );
  await pair.assertRunning(pair.primary);
  assert.ok((await pair.primary.verify()).ok);
  assert.ok(!secondary.hasFenced);
  assert.doesNotMatch(protect.stderr, /failover/);
}

/** Checks that it is protected again, without a word from anybody. */
async function isProtectedAgain(scene: Scene, times: number): Promise<void> {
  const { pair, secondary, protect } = scene;
  await protect.waitFor(
    new RegExp(`(protected: (checkpoints|snapshots) follow[^]*){${times + 1}}`),
    60_000,
  );
  await pair.senderIs("synchronizing");
  await pair.assertRunning(pair.primary);
  await pair.primary.kill9();
  await secondary.untilFenced();
}

const lostHeartbeat = ({ qmp }: Scene) => qmp.execute("x-colo-lost-heartbeat");

/**
 * Cancels COLO while its VM stands still in a checkpoint, which `protect` does not end meanwhile.
 *
 * @param signal What `protect` gets behind it.
 */
async function cancelInCheckpoint(
  { protect, qmp, status }: Scene,
  signal: Deno.Signal = "SIGCONT",
): Promise<void> {
  for (;;) {
    protect.signal("SIGSTOP");
    // What `protect` said last has arrived by the second look.
    const isStill = await status() === "colo" && (await delay(30), await status() === "colo");
    if (isStill) await qmp.execute("migrate_cancel");
    protect.signal(isStill ? signal : "SIGCONT");
    if (isStill) return;
    await delay(1 + 20 * Math.random());
  }
}

async function neverEnds(
  version: QemuSeries,
  machine: PairedMachine,
  cancel: (scene: Scene) => Promise<unknown> = ({ qmp }) => qmp.execute("migrate_cancel"),
): Promise<void> {
  const scene = await prepared(version, machine, "colo");
  await using _pair = scene.pair;
  await cancel(scene);
  await isHere(scene);
  // QEMU's COLO waits for a word that QEMU refuses to take.
  await scene.protect.waitFor(/cancelled and has not ended .* started anew/, 30_000);
  assert.equal(await scene.migration(), "cancelling");
  assert.equal(await scene.status(), "running");
  scene.protect.signal("SIGINT");
  assert.equal((await scene.protect.ended()).code, 130);
  await scene.pair.assertRunning(scene.pair.primary);
  assert.ok(!scene.secondary.hasFenced);
}

sideBySide("e2e: operators who end QEMU's migration", (scene) => {
  scene("x-colo-lost-heartbeat is no loss, and protection begins again: 11.1, tcg", async () => {
    const vm = await prepared("11.1", TCG, "colo");
    await using _pair = vm.pair;
    await lostHeartbeat(vm);
    await isHere(vm);
    await vm.protect.waitFor(/ended by x-colo-lost-heartbeat; .* protected again in 2 s/);
    await isProtectedAgain(vm, 1);
  });

  for (const version of ["7.2", "10.0", "11.1"] as const) {
    scene(
      `x-colo-lost-heartbeat is no loss, and protection begins again: ${version}, kvm`,
      async () => {
        const vm = await prepared(version, KVM, "colo");
        await using _pair = vm.pair;
        await lostHeartbeat(vm);
        await isHere(vm);
        await isProtectedAgain(vm, 1);
      },
      { needsKvm: true },
    );
  }

  scene("who ends it again at once is left alone for longer", async () => {
    const vm = await prepared("11.1", TCG, "colo");
    await using _pair = vm.pair;
    await lostHeartbeat(vm);
    await vm.protect.waitFor(/protected again in 2 s[^]*protected: checkpoints follow/, 60_000);
    await lostHeartbeat(vm);
    await vm.protect.waitFor(/protected again in 4 s/, 30_000);
    await isHere(vm);
  });

  scene("migrate_cancel of a COLO is no loss, and protection begins again: 7.2", async () => {
    const vm = await prepared("7.2", KVM, "colo");
    await using _pair = vm.pair;
    await vm.qmp.execute("migrate_cancel");
    await isHere(vm);
    await isProtectedAgain(vm, 1);
  }, { needsKvm: true });

  scene(
    "migrate_cancel of a COLO that QEMU never ends leaves the VM running here: 11.1, tcg",
    () => neverEnds("11.1", TCG),
  );
  for (const version of ["10.0", "11.1"] as const) {
    scene(
      `migrate_cancel of a COLO that QEMU never ends leaves the VM running here: ${version}, kvm`,
      () => neverEnds(version, KVM),
      { needsKvm: true },
    );
    scene(
      `migrate_cancel in the midst of a checkpoint leaves the VM running here: ${version}, kvm`,
      () => neverEnds(version, KVM, (vm) => cancelInCheckpoint(vm)),
      { needsKvm: true },
    );
  }
  scene(
    "migrate_cancel in the midst of a checkpoint leaves the VM running here: 11.1, tcg",
    () => neverEnds("11.1", TCG, (vm) => cancelInCheckpoint(vm)),
  );

  scene(
    "a protect that is killed behind a migrate_cancel leaves the VM running here, by its guardian",
    async () => {
      const vm = await prepared("11.1", TCG, "colo");
      await using pair = vm.pair;
      await cancelInCheckpoint(vm, "SIGKILL");
      await pair.assertRunning(pair.primary);
      assert.equal(await vm.migration(), "cancelling");
      assert.ok((await pair.primary.verify()).ok);
    },
  );

  for (const version of ["11.1", "7.2"] as const) {
    scene(
      `migrate_cancel of a snapshot is no loss, and protection begins again: ${version}`,
      async () => {
        const vm = await prepared(
          version,
          { ...TCG, memoryMiB: 256, regionKiB: 65_536 },
          "snapshot",
        );
        await using _pair = vm.pair;
        // Most of a round is none of QEMU's: one of these meets a migration.
        const cancelled = vm.qmp.waitEvent(
          "MIGRATION",
          60_000,
          ({ data }) => data.status === "cancelled",
        );
        let isOver = false;
        cancelled.then(() => isOver = true);
        while (!isOver) await vm.qmp.execute("migrate_cancel");
        await isHere(vm);
        await isProtectedAgain(vm, 1);
      },
    );
  }

  scene("a yank is no loss, and protection begins again", async () => {
    const vm = await prepared("11.1", TCG, "colo");
    await using _pair = vm.pair;
    await vm.qmp.execute("yank", { instances: [{ type: "migration" }] });
    await isHere(vm);
    await isProtectedAgain(vm, 1);
  });

  scene(
    "an operator who ends a migration wants no takeover where the VM is to stop on a loss",
    async () => {
      const vm = await prepared("11.1", TCG, "colo", "--on-secondary-loss", "stop");
      await using _pair = vm.pair;
      await lostHeartbeat(vm);
      await isHere(vm);
      await isProtectedAgain(vm, 1);
    },
  );

  scene(
    "without retry, a protection that somebody has ended says that the VM is here",
    async () => {
      const vm = await prepared("11.1", TCG, "colo", "--no-retry");
      await using _pair = vm.pair;
      await lostHeartbeat(vm);
      const { code, stderr } = await vm.protect.ended();
      assert.equal(code, 5, stderr);
      assert.match(stderr, /hint: the VM is here, unprotected, and the secondary knows/);
      await isHere(vm);
    },
  );

  scene(
    "a VM that an operator migrates away while it is unprotected ends its protection well",
    async () => {
      const vm = await prepared("11.1", TCG, "colo");
      await using _pair = vm.pair;
      vm.secondary.recv.signal("SIGKILL");
      await vm.protect.waitFor(/secondary lost: .*trying again/, 30_000);
      await vm.qmp.execute("migrate-set-capabilities", {
        capabilities: ["x-colo", "return-path"].map((capability) => ({ capability, state: false })),
      });
      const completed = vm.qmp.waitEvent(
        "MIGRATION",
        60_000,
        ({ data }) => data.status === "completed",
      );
      await vm.qmp.execute("migrate-set-capabilities", {
        capabilities: [{ capability: "events", state: true }],
      });
      await vm.qmp.execute("migrate", { uri: "exec:cat >/dev/null" });
      await completed;
      const next = await EagerSecondary.start(vm.pair);
      const { code, stderr } = await vm.protect.ended(30_000);
      assert.equal(code, 0, stderr);
      assert.match(stderr, /the VM has ended: The VM was migrated \(postmigrate\)/);
      assert.equal(await vm.status(), "postmigrate", "two VMs, otherwise");
      assert.ok(!next.hasFenced);
    },
  );

  for (const what of ["secondary", "protect"]) {
    scene(`an operator's migration goes on, whatever becomes of ${what}`, async () => {
      const vm = await prepared("11.1", { ...TCG, memoryMiB: 256 }, "colo");
      await using pair = vm.pair;
      vm.secondary.recv.signal("SIGKILL");
      await vm.protect.waitFor(/secondary lost: .*trying again/, 30_000);
      // Longer than anything here takes: nobody reads.
      const path = `${pair.folder}/elsewhere`;
      using listener = Deno.listen({ transport: "unix", path });
      await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 100_000 });
      await vm.qmp.execute("migrate", { uri: `unix:${path}` });
      using _connection = await listener.accept();
      const next = await EagerSecondary.start(pair);
      await vm.protect.waitFor(/A migration is under way already/, 30_000);
      if (what === "secondary") {
        next.recv.signal("SIGKILL");
        await pair.senderIs("unprotected");
      } else {
        vm.protect.signal("SIGKILL");
        await vm.protect.ended();
      }
      await delay(1500);
      assert.equal(await vm.migration(), "active");
    });
  }
});
