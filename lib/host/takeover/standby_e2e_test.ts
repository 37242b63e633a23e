/** `kemari recv --standby` on real QEMU: what it takes over, and what may go wrong with it. */
import assert from "node:assert/strict";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { failover, ProtectedPair } from "../../lab/testing/protected_pair.ts";
import type { QemuSeries } from "../../lab/provision/qemu.ts";
import type { KemariProcess } from "../../lab/program/kemari_process.ts";
import type { ReceiverStatus } from "../../control/receiver_status.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

/** A guest without Linux, for what is not about one. */
const BARE = { accelerator: "tcg", timer: "apic" } as const;
const OFTEN = ["--sync-interval", "20"];
/** A QEMU that is protected by a loop of whole migrations makes fewer. */
const SNAPSHOTS = 3;
const NULL_DISK = ["-blockdev", "driver=null-co,node-name=d,size=67108864,read-zeroes=on"];
const NETS = ["-netdev", "hubport,id=n0,hubid=0", "-netdev", "hubport,id=n1,hubid=1"];

interface TestedMachine {
  readonly version?: QemuSeries;
  readonly machine?: string;
  readonly args: readonly string[];
}

/** Machines whose standby must take over: every QEMU that can be one, one and several RAM back ends, and every kind of device. */
const MACHINES: Readonly<Record<string, TestedMachine>> = {
  "pc, virtio and e1000": {
    args: [
      ...NULL_DISK,
      ...["-device", "virtio-blk-pci,drive=d", ...NETS],
      ...["-device", "virtio-net-pci,netdev=n0", "-device", "e1000,netdev=n1"],
      ...["-device", "virtio-scsi-pci", "-device", "virtio-rng-pci", "-device", "VGA"],
    ],
  },
  "pc of QEMU 7.2": { version: "7.2", args: ["-device", "virtio-rng-pci"] },
  "pc of QEMU 10.0": { version: "10.0", args: ["-device", "virtio-rng-pci"] },
  "q35 with AHCI, two NUMA nodes": {
    machine: "q35",
    args: [
      ...NULL_DISK,
      ...["-device", "ide-hd,drive=d", ...NETS, "-device", "e1000,netdev=n0"],
      ...["-device", "virtio-net-pci,netdev=n1", "-smp", "2"],
      // No multiples of 256 KiB, see findForgottenRam().
      ...["-object", "memory-backend-ram,id=near,size=131068K", "-numa", "node,memdev=near,cpus=0"],
      ...["-object", "memory-backend-ram,id=far,size=65540K", "-numa", "node,memdev=far,cpus=1"],
    ],
  },
};

/** Folders that recv has made for RAM by itself. */
function ramFolders(): string[] {
  return [...Deno.readDirSync("/dev/shm")].map(({ name }) => name)
    .filter((name) => /^kemari-[0-9a-f]{12}$/.test(name));
}

const LEFT_BEFORE = new Set(ramFolders());

/** Ends recv, and with it the VM that it has; it leaves nothing behind. */
async function endClean(recv: KemariProcess) {
  try {
    recv.signal("SIGTERM");
  } catch {
    // It has ended by itself.
  }
  const ended = await recv.ended();
  assert.deepEqual(ramFolders().filter((name) => !LEFT_BEFORE.has(name)), [], ended.stderr);
  return ended;
}

function assertPhases(status: ReceiverStatus, mode: "warm" | "cold") {
  const { takeover } = status;
  assert.equal(takeover?.mode, mode);
  const { fencedMs, appliedMs, loadedMs, runningMs } = takeover!;
  const phases = [fencedMs, appliedMs, loadedMs, runningMs] as number[];
  assert.ok(phases.every((ms, i) => ms >= (i === 0 ? 0 : phases[i - 1])), `${phases}`);
}

for (const [name, { version, machine, args }] of Object.entries(MACHINES)) {
  Deno.test(`e2e: a warm standby takes over: ${name}`, async () => {
    await using pair = await ProtectedPair.boot(version ?? "11.1", args, machine);
    const guest = await pair.standbyGuest();
    const recv = await pair.recvWithStandby(guest);
    const protect = pair.protect(...OFTEN);
    await pair.syncs(version === undefined ? 30 : SNAPSHOTS);
    await pair.receiverStatus(({ standby }) => standby?.state === "ready");
    await pair.primary.powerCut();
    assert.equal((await protect.ended()).code, 4);
    await failover(pair);
    await pair.assertTakenOver(guest);
    const status = await pair.receiverStatus();
    assert.equal(status.state, "active");
    assert.equal(status.standby?.state, "running");
    assertPhases(status, "warm");
    await endClean(recv);
  });
}

/** What the standby differs in, and what recv says before anything is acknowledged. */
const MISFITS: Readonly<
  Record<string, [{ machine?: string; memoryMiB?: number; args?: string[] }, RegExp]>
> = {
  "another machine type": [
    { machine: "q35" },
    /its machine type is pc-q35-11.1, and the primary's is pc-i440fx-11.1/,
  ],
  "another RAM size": [{ memoryMiB: 256 }, /[Mm]achine memory size does not match/],
  "a device too few": [
    { args: ["-device", "e1000,romfile=,addr=5"] },
    /does not take the VM's state: .*(virtio-rng|Unknown section|unknown section)/,
  ],
};

Deno.test("e2e: a standby that is another machine is refused before the first acknowledgement", async (t) => {
  const args = ["-device", "virtio-rng-pci,addr=4", "-device", "e1000,romfile=,addr=5"];
  await using pair = await BarePair.boot("11.1", { ...BARE, args });
  for (const [name, [differently, reason]] of Object.entries(MISFITS)) {
    await t.step(name, async () => {
      await using guest = await pair.standby(differently);
      const recv = await pair.recvWithStandby(guest.vm);
      const protect = pair.protect("--no-retry");
      await recv.waitFor(/kemari: QEMU, standby/);
      const { code, stderr } = await endClean(recv);
      assert.equal(code, 5, stderr);
      assert.match(stderr, reason);
      const sender = await protect.ended();
      assert.match(sender.stderr, reason);
      await pair.assertRunning(pair.primary);
    });
  }
});

Deno.test("e2e: a standby that dies is started again, and takes over", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  const guest = await pair.standby();
  const recv = await pair.recvWithStandby(guest.vm);
  pair.protect(...OFTEN);
  await pair.syncs(10);
  const { standby } = await pair.receiverStatus((status) => status.standby?.state === "ready");
  Deno.kill(standby!.pid!, "SIGKILL");
  const again = await pair.receiverStatus((status) => {
    return status.standby?.state === "ready" && status.standby.restarts === 1;
  });
  assert.notEqual(again.standby!.pid, standby!.pid);
  await pair.syncs(60);
  await pair.primary.powerCut();
  await pair.receiverStatus(({ state }) => state === "waiting");
  await failover(pair);
  await pair.assertTakenOver(guest);
  assertPhases(await pair.receiverStatus(), "warm");
  await endClean(recv);
});

Deno.test("e2e: a standby killed while it loads: a cold start takes over from the same replica", async () => {
  await using pair = await BarePair.boot("11.1", BARE);
  const guest = await pair.standby();
  const recv = await pair.recvWithStandby(guest.vm);
  pair.protect(...OFTEN);
  await pair.syncs(30);
  const { standby } = await pair.receiverStatus((status) => status.standby?.state === "ready");
  await pair.primary.powerCut();
  await pair.receiverStatus(({ state }) => state === "waiting");
  // Stopped it takes the connection and reads nothing; then it dies in mid-load.
  const pid = standby!.pid!;
  Deno.kill(pid, "SIGSTOP");
  const done = failover(pair);
  await delay(300);
  Deno.kill(pid, "SIGKILL");
  await done;
  await pair.assertTakenOver(guest);
  assertPhases(await pair.receiverStatus(), "cold");
  await recv.waitFor(/no warm standby, activation is cold/);
  await endClean(recv);
});

Deno.test("e2e: a killed recv takes its waiting standby along; the next one goes on with the replica", async () => {
  await using pair = await ProtectedPair.boot("11.1");
  const guest = await pair.standbyGuest();
  const recv = await pair.recvWithStandby(guest);
  pair.protect(...OFTEN);
  await pair.syncs(20);
  const { standby } = await pair.receiverStatus((status) => status.standby?.state === "ready");
  recv.signal("SIGKILL");
  await recv.ended();
  await until(() => !isAlive(standby!.pid!), "the standby to end with its recv");
  await pair.senderIs("unprotected");
  const next = await pair.recvWithStandby(guest);
  await next.waitFor(/going on with transaction \d+/);
  const after = await pair.senderStatus(({ state, syncs }) =>
    state === "synchronizing" && syncs >= 10
  );
  assert.ok(after.unchangedPages > 1000, `${after.unchangedPages} pages left out`);
  await pair.primary.powerCut();
  await pair.receiverStatus(({ state }) => state === "waiting");
  await failover(pair);
  await pair.assertTakenOver(guest);
  assertPhases(await pair.receiverStatus(), "warm");
  await endClean(next);
});

function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}
