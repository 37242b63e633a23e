/** For tests: VMs under KVM, so many checkpoints, the primary's death, and who goes on. */

import assert from "node:assert/strict";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { startMigration } from "../../qmp/migration.ts";
import { failover } from "./kemari_pair.ts";
import { kvmTest } from "../vms/kvm.ts";
import { ensureQemu, type QemuSeries } from "../provision/qemu.ts";
import { FROM_SOURCE } from "../program/kemari_process.ts";
import { BarePair, type PairedMachine } from "./bare_pair.ts";
import type { BareVm, HostVm } from "../bare_guest/bare_vm.ts";

/** Every QEMU whose COLO kemari uses under KVM; the scenes are shared out among them. */
export const VERSIONS: readonly QemuSeries[] = ["11.1", "10.0", "7.2", "5.2"];

/**
 * Those whose COLO gets along with the dirty ring: 7.2 and 10.0 abort at their first checkpoint
 * (measured: kvm_dirty_ring_flush() wants the lock that COLO does not hold), and 5.2 has no ring.
 */
const WITH_RING: readonly QemuSeries[] = ["11.1"];

const INTERVAL_MS = 2;

/**
 * What differs from scene to scene. An in-kernel PIT would not tick between checkpoints that come
 * so fast: a guest that lives on it needs the split irqchip.
 */
interface Scene {
  readonly machine: "pc" | "q35";
  readonly timer: "pit" | "apic";
  readonly cpus: 1 | 2;
  /** How KVM tells QEMU which pages are dirty. */
  readonly dirty: "bitmap" | "ring";
  readonly takeover: "cold" | "warm";
  /** Who begins: `kemari protect`, or QEMU itself with `migrate exec:kemari send`. */
  readonly by: "protect" | "exec";
  /** What dies: QEMU alone, or the primary's kemari with it, as in a power cut. */
  readonly dies: "all" | "qemu";
}

/**
 * Pairs of scenes that have nothing in common. Over all of them, any two properties meet in each of
 * their four combinations; and within each pair each property has both values, so that whoever gets
 * one pair has tried everything.
 */
const SCENES: readonly (readonly [Scene, Scene])[] = [
  [
    scene("pc", "pit", 1, "bitmap", "cold", "protect", "all"),
    scene("q35", "apic", 2, "ring", "warm", "exec", "qemu"),
  ],
  [
    scene("pc", "pit", 1, "ring", "warm", "exec", "qemu"),
    scene("q35", "apic", 2, "bitmap", "cold", "protect", "all"),
  ],
  [
    scene("pc", "apic", 2, "bitmap", "cold", "exec", "qemu"),
    scene("q35", "pit", 1, "ring", "warm", "protect", "all"),
  ],
  [
    scene("q35", "pit", 2, "bitmap", "warm", "protect", "qemu"),
    scene("pc", "apic", 1, "ring", "cold", "exec", "all"),
  ],
];

function scene(
  machine: Scene["machine"],
  timer: Scene["timer"],
  cpus: Scene["cpus"],
  dirty: Scene["dirty"],
  takeover: Scene["takeover"],
  by: Scene["by"],
  dies: Scene["dies"],
): Scene {
  return { machine, timer, cpus, dirty, takeover, by, dies };
}

function machineOf(version: QemuSeries, { machine, timer, cpus, dirty }: Scene): PairedMachine {
  const split = timer === "pit" ? { kernelIrqchip: "split" } as const : {};
  const common = { machine, timer, cpus, ...split };
  if (dirty === "bitmap" || !WITH_RING.includes(version)) return { ...common, accelerator: "kvm" };
  // Where KVM emulates the guest, each write takes an entry of the ring, and the writes of one
  // instruction may overflow it, behind which QEMU and KVM never agree again (measured, without
  // kemari: the vCPU stands still for ever). Few writes and the largest ring stay clear of that.
  return { ...common, accelerator: "kvm,dirty-ring-size=65536", pages: 2 };
}

/** Starts the secondary's side. */
async function receive(pair: BarePair, takeover: Scene["takeover"]): Promise<BareVm<HostVm>> {
  if (takeover === "cold") {
    await pair.recv();
    return await pair.secondary();
  }
  const guest = await pair.standby();
  await pair.recvWithStandby(guest.vm);
  return guest;
}

/** Has QEMU start `kemari send` itself. */
async function migrateToSend(pair: BarePair, version: QemuSeries): Promise<void> {
  const { fullVersion } = await ensureQemu(version);
  await using qmp = await QmpClient.connect(pair.primary.qmpPath);
  // Where COLO does not insist on a return path, it does not work with one.
  const wanted = Number(fullVersion.split(".")[0]) >= 11 ? ["return-path", "x-colo"] : ["x-colo"];
  await qmp.execute("migrate-set-capabilities", {
    capabilities: wanted.map((capability) => ({ capability, state: true })),
  });
  await qmp.execute("migrate-set-parameters", { "x-checkpoint-delay": INTERVAL_MS });
  const send = [...FROM_SOURCE, "send", pair.link, "--control", pair.sendControl];
  await qmp.run(startMigration(`exec:exec ${send.join(" ")}`));
}

async function protectsAndTakesOver(
  version: QemuSeries,
  scene: Scene,
  checkpoints: number,
): Promise<void> {
  await using pair = await BarePair.boot(version, machineOf(version, scene));
  const secondary = await receive(pair, scene.takeover);
  const protect = scene.by === "protect"
    ? pair.protect("--sync-interval", String(INTERVAL_MS))
    : undefined;
  if (protect === undefined) await migrateToSend(pair, version);
  const { mode, syncs } = await pair.syncs(checkpoints);
  assert.equal(mode, "colo");
  await pair.assertRunning(pair.primary);
  if (scene.takeover === "warm") {
    await pair.receiverStatus(({ standby }) => standby?.state === "ready");
  }
  assert.ok((await pair.syncs(syncs + checkpoints)).syncs > syncs);
  if (scene.dies === "all") {
    protect?.signal("SIGKILL");
    await pair.primary.powerCut();
  } else {
    await pair.primary.kill9();
  }
  if (protect !== undefined) {
    const { code } = await protect.ended();
    assert.equal(code, scene.dies === "all" ? 137 : 4);
  }
  await pair.receiverStatus(({ state }) => state === "waiting");
  await failover(pair);
  await pair.assertTakenOver(secondary);
  if (scene.takeover === "warm") {
    const { takeover } = await pair.receiverStatus(({ state }) => state === "active");
    assert.equal(takeover?.mode, "warm");
  }
}

/**
 * Tests a version's share of the scenes.
 *
 * @param checkpoints Of each half: a guest that is running is looked at between them.
 */
export function testKvmScenes(version: QemuSeries, checkpoints: number): void {
  const number = VERSIONS.indexOf(version);
  for (const scene of SCENES.filter((_, i) => i % VERSIONS.length === number).flat()) {
    const { machine, timer, cpus, takeover, by, dies } = scene;
    const { accelerator } = machineOf(version, scene);
    kvmTest(
      `e2e: under kvm the guest goes on: QEMU ${version}, ${accelerator}, ${machine}, ${timer}, ` +
        `${cpus} vCPU, ${takeover}, by ${by}, ${dies} dies`,
      () => protectsAndTakesOver(version, scene, checkpoints),
    );
  }
}
