/** QEMUs that others have started, in ways that keep them from coming to kemari by themselves. */
import assert from "node:assert/strict";
import { BarePair, type PairedMachine } from "../../lab/testing/bare_pair.ts";
import { failover } from "../../lab/testing/kemari_pair.ts";
import { QmpRelay } from "../../lab/testing/qmp_relay.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { migrateStopped, resumeArrived } from "../../lab/vms/stopped_migration.ts";
import { QmpClient } from "../vm/qmp_client.ts";

const MACHINE = { accelerator: "tcg", timer: "apic" } as const;
const isRoot = Deno.uid() === 0;

/** A protected VM, whose primary is then cut off and taken over from. */
async function protectAndTakeOver(
  pair: BarePair,
  protect: () => KemariProcess = () => pair.protect("--sync-interval", "20"),
): Promise<KemariProcess> {
  await pair.recv();
  const secondary = await pair.secondary();
  const process = protect();
  await pair.syncs(20);
  await pair.primary.powerCut();
  await process.ended();
  await failover(pair);
  await pair.assertTakenOver(secondary);
  return process;
}

/** Checks that QEMU was given its end, and told no path. */
function assertHandedOver({ stderr }: KemariProcess): void {
  assert.doesNotMatch(stderr, /told a path/);
}

/** Starts protect by another monitor than the VM's own. */
function protectBy(pair: BarePair, qmp: string, before = ""): KemariProcess {
  const words = ["protect", "--qmp", qmp, pair.link, "--control", pair.sendControl];
  return pair.own(new KemariProcess([...words, "--sync-interval", "20"], { before }));
}

function boot(machine: Partial<PairedMachine> = {}): Promise<BarePair> {
  return BarePair.boot("11.1", { ...MACHINE, ...machine });
}

const SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

Deno.test("e2e: a QEMU in its sandbox is protected", async () => {
  await using pair = await boot({ args: ["-sandbox", SANDBOX] });
  assertHandedOver(await protectAndTakeOver(pair));
});

Deno.test({
  name: "e2e: a QEMU that runs as nobody is protected" + (isRoot ? "" : " (SKIP: needs root)"),
  ignore: !isRoot,
  fn: async () => {
    await using pair = await boot({ args: ["-run-with", "user=nobody"] });
    const status = await Deno.readTextFile(`/proc/${pair.primary.pid}/status`);
    assert.doesNotMatch(status, /^Uid:\s+0\s/m);
    assertHandedOver(await protectAndTakeOver(pair));
  },
});

Deno.test({
  name: "e2e: a QEMU in a mount namespace of its own is protected" +
    (isRoot ? "" : " (SKIP: needs root)"),
  ignore: !isRoot,
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari-mounts-" });
    try {
      // All that kemari makes there is hidden from QEMU.
      const hide = `mount -t tmpfs none '${folder}' && exec "$0" "$@"`;
      await using pair = await boot({ prefix: ["unshare", "-m", "sh", "-c", hide] });
      await protectAndTakeOver(
        pair,
        () => protectBy(pair, pair.primary.qmpPath, `TMPDIR='${folder}'`),
      );
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test("e2e: a monitor over TCP is told a path instead", async () => {
  await using pair = await boot();
  await using relay = QmpRelay.open(pair.primary.qmpPath, "tcp");
  await protectAndTakeOver(pair, () => protectBy(pair, relay.address));
});

Deno.test("e2e: a monitor that takes no descriptors is told a path instead, and says so", async () => {
  await using pair = await boot();
  await using relay = QmpRelay.open(pair.primary.qmpPath, { path: `${pair.folder}/relay` });
  const protect = await protectAndTakeOver(pair, () => protectBy(pair, `unix:${relay.address}`));
  assert.match(protect.stderr, /this monitor takes no descriptor \(.*\): QEMU is told a path/);
});

Deno.test({
  name: "e2e: a path that QEMU cannot reach is told with what to do" +
    (isRoot ? "" : " (SKIP: needs root)"),
  ignore: !isRoot,
  fn: async () => {
    await using pair = await boot({ args: ["-run-with", "user=nobody"] });
    await using relay = QmpRelay.open(pair.primary.qmpPath, "tcp");
    await pair.recv();
    await pair.secondary();
    const { code, stderr } = await protectBy(pair, relay.address).ended();
    assert.equal(code, 5, stderr);
    assert.match(stderr, /^kemari: QEMU, migrate: .*[Pp]ermission denied/m);
    assert.match(stderr, /^hint: .*must be able to reach .*; give --qmp the path of its monitor/m);
    await pair.assertRunning(pair.primary);
  },
});

Deno.test("e2e: snapshots of a QEMU in its sandbox come through its monitor too", async () => {
  await using pair = await boot({ args: ["-sandbox", SANDBOX] });
  await protectAndTakeOver(
    pair,
    () => pair.protect("--mode", "snapshot", "--sync-interval", "20"),
  );
});

Deno.test("e2e: a VM that is started stopped is waited for, and protected when it runs", async () => {
  await using pair = await BarePair.boot("11.1", { ...MACHINE, args: ["-S"] }, { waits: true });
  await pair.recv();
  await pair.secondary();
  const protect = pair.protect("--sync-interval", "20");
  await protect.waitFor(/The VM stands still \(prelaunch\): it is protected once it runs \(cont\)/);
  await pair.senderIs("waiting for the VM to run");
  await using qmp = await QmpClient.connect(pair.primary.spareQmpPath);
  const { status } = await qmp.execute("query-status") as { status: string };
  assert.equal(status, "prelaunch");
  await qmp.execute("cont");
  await pair.syncs(20);
  await pair.assertRunning(pair.primary);
});

Deno.test("e2e: a VM that a live migration brings to its taps is waited for, and protected when it runs", async () => {
  await using pair = await BarePair.boot("11.1", { ...MACHINE, args: ["-incoming", "defer"] }, {
    waits: true,
  });
  await using source = await BarePair.boot("11.1", MACHINE);
  const disk = async (side: string) => {
    await Deno.writeFile(`${pair.folder}/${side}`, new Uint8Array(65536));
    return ["--disk", `d0=${pair.folder}/${side},unix:${pair.folder}/${side}.nbd`];
  };
  const recv = ["recv", pair.link, "--exec", "cat >/dev/null", ...await disk("copy")];
  await pair.own(new KemariProcess(recv)).listening();
  const protect = pair.protect("--sync-interval", "20", ...await disk("disk"));
  await protect.waitFor(/waits for an incoming migration \(inmigrate\).* once it has arrived/);
  await pair.senderIs("waiting for the VM to run");
  const uri = `unix:${pair.folder}/migration`;
  {
    await using arrival = await QmpClient.connect(pair.primary.spareQmpPath);
    await arrival.execute("migrate-incoming", { uri });
  }
  await using departure = await QmpClient.connect(source.primary.spareQmpPath);
  await migrateStopped(departure, uri);
  await resumeArrived(pair.primary.vm);
  await pair.syncs(20);
  await pair.assertRunning(pair.primary);
});

Deno.test("e2e: status answers while a QEMU that is served its taps has not come yet", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-early-" });
  await Deno.writeFile(`${folder}/disk`, new Uint8Array(65536));
  await using protect = new KemariProcess([
    ...["protect", "--qmp", `${folder}/qmp`, `unix:${folder}/link`],
    ...["--control", `${folder}/control`, "--disk", `d0=${folder}/disk,unix:${folder}/nbd`],
  ]);
  await protect.waitFor(/waiting for QEMU at/);
  await using status = new KemariProcess(["status", `${folder}/control`]);
  const { code, stdout } = await status.ended();
  assert.equal(code, 0);
  assert.match(new TextDecoder().decode(stdout), /^sender +waiting for QEMU\npeer +unix:/);
  protect.signal("SIGINT");
  assert.equal((await protect.ended()).code, 130);
  assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["disk"]);
  await Deno.remove(folder, { recursive: true });
});
