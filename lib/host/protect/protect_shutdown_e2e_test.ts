/** The ends of a VM that are no deaths, and those that are: who is told, who is fenced. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair, type PairedMachine } from "../../lab/testing/bare_pair.ts";
import { EagerSecondary } from "../../lab/testing/eager_secondary.ts";
import type { QemuSeries } from "../../lab/provision/qemu.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { until } from "../../lab/program/until.ts";

const COMMON = { timer: "apic" } as const;
const TCG: PairedMachine = { ...COMMON, accelerator: "tcg" };
const KVM: PairedMachine = { ...COMMON, accelerator: "kvm" };

/** A protected VM, whose secondary takes over at a loss, and a monitor of the test's own. */
async function prepared(
  version: QemuSeries,
  machine: PairedMachine,
  mode: "colo" | "snapshot" | "auto" = "auto",
  ...options: string[]
) {
  const pair = await BarePair.boot(version, machine);
  const secondary = await EagerSecondary.start(pair);
  const protect = pair.protect("--mode", mode, "--sync-interval", "20", ...options);
  await pair.syncs(5);
  const qmp = pair.own(await QmpClient.connect(pair.primary.spareQmpPath));
  return { pair, secondary, protect, qmp };
}

/** The guest's last words may not get out any more. */
function tell(pair: BarePair, command: string): void {
  pair.primary.ask(command).catch(() => {});
}

type Scene = Awaited<ReturnType<typeof prepared>>;

/** What ends a VM in an orderly way → QEMU's reason for it. */
const ENDS: readonly (readonly [string, RegExp, (scene: Scene) => unknown, string[]?])[] = [
  ["guest poweroff", /guest-shutdown/, ({ pair }) => tell(pair, "poweroff")],
  ["quit", /host-qmp-quit/, ({ qmp }) => qmp.execute("quit").catch(() => {})],
  ["SIGTERM", /host-signal/, ({ pair }) => Deno.kill(pair.primary.pid, "SIGTERM")],
  ["SIGINT", /host-signal/, ({ pair }) => Deno.kill(pair.primary.pid, "SIGINT")],
  ["SIGHUP", /host-signal/, ({ pair }) => Deno.kill(pair.primary.pid, "SIGHUP")],
  ["guest reboot, -no-reboot", /guest-reset/, ({ pair }) => tell(pair, "reboot"), ["-no-reboot"]],
  [
    "guest panic, -action panic=shutdown",
    /guest-panic/,
    ({ pair }) => tell(pair, "panic"),
    ["-device", "pvpanic", "-action", "panic=shutdown"],
  ],
  [
    "guest panic, -action panic=exit-failure",
    /guest-panic/,
    ({ pair }) => tell(pair, "panic"),
    ["-device", "pvpanic", "-action", "panic=exit-failure"],
  ],
  [
    "watchdog, -action watchdog=poweroff",
    /the VM has ended: watchdog/,
    ({ pair }) => tell(pair, "watchdog"),
    ["-device", "ib700", "-action", "watchdog=poweroff"],
  ],
  [
    "system_reset, -action reboot=shutdown",
    /host-qmp-system-reset/,
    ({ qmp }) => qmp.execute("system_reset").catch(() => {}),
    ["-action", "reboot=shutdown"],
  ],
];

async function endsWell(scene: Scene, reason: RegExp): Promise<void> {
  const { pair, secondary, protect } = scene;
  const { code, stderr } = await protect.ended(60_000);
  assert.equal(code, 0, stderr);
  assert.match(stderr, reason);
  assert.match(stderr, /the secondary knows that the VM was shut down/);
  assert.doesNotMatch(stderr, /failover/);
  await secondary.recv.waitFor(/the VM was shut down at the primary \(.*nothing is started here/);
  await pair.receiverStatus(({ state }) => state === "waiting");
  assert.ok(!secondary.hasFenced);
}

sideBySide("e2e: the ends of a protected VM", (scene) => {
  for (const [what, reason, act, args] of ENDS) {
    scene(`${what} is an orderly end: the secondary is told, and fences nobody`, async () => {
      const vm = await prepared("11.1", { ...TCG, args });
      await using _pair = vm.pair;
      await act(vm);
      await endsWell(vm, reason);
    });
  }

  for (
    const [version, machine, mode] of [
      ["7.2", KVM, "colo"],
      ["10.0", KVM, "colo"],
      ["11.1", KVM, "colo"],
      ["11.1", KVM, "snapshot"],
    ] as const
  ) {
    scene(
      `guest poweroff and quit are orderly ends under kvm: ${version}, ${mode}`,
      async () => {
        for (const end of ENDS.slice(0, 2)) {
          const vm = await prepared(version, machine, mode);
          await using _pair = vm.pair;
          await end[2](vm);
          await endsWell(vm, end[1]);
        }
      },
      { needsKvm: true },
    );
  }

  scene("guest poweroff is an orderly end between snapshots under tcg: 7.2", async () => {
    const vm = await prepared("7.2", TCG);
    await using _pair = vm.pair;
    tell(vm.pair, "poweroff");
    await endsWell(vm, /guest-shutdown/);
  });

  scene("a VM that QEMU keeps behind its end stays as it is: -no-shutdown", async () => {
    for (const mode of ["colo", "snapshot"] as const) {
      const vm = await prepared("11.1", { ...TCG, args: ["-no-shutdown"] }, mode);
      await using pair = vm.pair;
      tell(pair, "poweroff");
      await endsWell(vm, /guest-shutdown/);
      const { status } = await vm.qmp.execute("query-status") as { status: string };
      assert.ok(["shutdown", "postmigrate"].includes(status), status);
      const { status: migration } = await vm.qmp.execute("query-migrate") as { status: string };
      assert.notEqual(migration, "colo", "QEMU is of use again");
      if (mode === "snapshot") continue;
      const again = pair.protect();
      const { code, stderr } = await again.ended();
      assert.equal(code, 5, stderr);
      assert.match(stderr, /The guest has shut down/);
    }
  });

  scene("a VM that is shut down while it has no secondary ends its protection well", async () => {
    const { pair, secondary, protect } = await prepared("11.1", TCG);
    await using _pair = pair;
    secondary.recv.signal("SIGKILL");
    await pair.senderIs("unprotected");
    tell(pair, "poweroff");
    const { code, stderr } = await protect.ended();
    assert.equal(code, 0, stderr);
    assert.match(stderr, /the VM has ended: guest-shutdown/);
  });

  scene(
    "an end that the secondary does not acknowledge is said to be one that may be taken over",
    async () => {
      const { pair, secondary, protect } = await prepared("11.1", TCG);
      await using _pair = pair;
      secondary.recv.signal("SIGSTOP");
      tell(pair, "poweroff");
      const { code, stderr } = await protect.ended();
      assert.equal(code, 4, stderr);
      assert.match(
        stderr,
        /the VM was shut down \(guest-shutdown\), and the secondary has not acknowledged it/,
      );
      secondary.recv.signal("SIGCONT");
    },
  );

  scene("kill -9 of QEMU and its crash are deaths: the secondary takes over", async () => {
    for (const signal of ["SIGKILL", "SIGSEGV"] as const) {
      const { pair, secondary, protect } = await prepared("11.1", TCG);
      await using _pair = pair;
      Deno.kill(pair.primary.pid, signal);
      const { code, stderr } = await protect.ended();
      assert.equal(code, 4, stderr);
      await secondary.recv.waitFor(/primary lost/);
      await secondary.untilFenced();
    }
  });

  scene("a guest that reboots goes on being protected", async () => {
    for (const [version, mode] of [["11.1", "colo"], ["7.2", "snapshot"]] as const) {
      const { pair, secondary, protect, qmp } = await prepared(version, TCG, mode);
      await using _pair = pair;
      const reset = qmp.waitEvent("RESET", 60_000);
      tell(pair, "reboot");
      await reset;
      const before = (await pair.syncs(0)).syncs;
      await pair.syncs(before + 5);
      const booted = ({ text }: { text: string }) => /^bare guest boot=/.test(text);
      await until(
        () => pair.primary.console.lines.filter(booted).length >= 2,
        "the guest to boot again",
      );
      await pair.assertRunning(pair.primary);
      assert.ok((await pair.primary.verify()).ok);
      assert.doesNotMatch(protect.stderr, /the VM is [^;]*unprotected/);
      await pair.primary.kill9();
      await secondary.untilFenced();
    }
  });

  for (const [what, state] of [["panic", "guest-panicked"], ["watchdog", "watchdog"]] as const) {
    for (const [version, mode] of [["11.1", "colo"], ["7.2", "snapshot"]] as const) {
      scene(
        `a guest's ${what} that QEMU answers by a pause leaves the VM where it is: ${version}, ${mode}`,
        async () => {
          const args = ["-device", "pvpanic", "-device", "ib700"];
          const actions = ["-action", "panic=pause,watchdog=pause"];
          const { pair, secondary, protect, qmp } = await prepared(
            version,
            { ...TCG, args: [...args, ...actions] },
            mode,
          );
          await using _pair = pair;
          tell(pair, what);
          const status = async () =>
            (await qmp.execute("query-status") as { status: string }).status;
          await protect.waitFor(/the VM is paused|the VM was stopped \(/, 60_000);
          await until(async () => [state, "postmigrate"].includes(await status()), state);
          assert.ok(!secondary.hasFenced);
          const { syncs } = await pair.syncs(0);
          await qmp.execute("cont");
          await pair.syncs(syncs + 3);
          await pair.assertRunning(pair.primary);
          assert.ok(!secondary.hasFenced);
        },
      );
    }
  }

  scene("what QEMU does nothing about goes on: -action panic=none", async () => {
    const args = ["-device", "pvpanic", "-action", "panic=none"];
    const { pair, protect, qmp } = await prepared("11.1", { ...TCG, args });
    await using _pair = pair;
    const panicked = qmp.waitEvent("GUEST_PANICKED", 60_000);
    tell(pair, "panic");
    await panicked;
    const { syncs } = await pair.syncs(0);
    await pair.syncs(syncs + 5);
    await pair.assertRunning(pair.primary);
    assert.doesNotMatch(protect.stderr, /the VM is [^;]*unprotected/);
  });
});
