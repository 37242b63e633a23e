/** The bare guest on every QEMU, under TCG and KVM. */

import assert from "node:assert/strict";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { kvmTest } from "../vms/kvm.ts";
import { ensureQemu, type QemuVersion } from "../provision/qemu.ts";
import { type BareVmOptions, startBareVm } from "./bare_vm.ts";

const onProgress = (line: string) => console.error(line);

const VERSIONS: readonly QemuVersion[] = ["5.2", "7.2", "10.0", "11.1"];

type Boot = Omit<BareVmOptions, "name" | "qemu" | "accelerator">;

/** Each boot has both timers, one after the other. */
const BOOTS: readonly Boot[] = [
  { machine: "pc", timer: "pit", cpus: 2 },
  { machine: "q35", timer: "pit", irq: "apic", cpus: 1 },
];

async function boot(version: QemuVersion, options: Omit<BareVmOptions, "name" | "qemu">) {
  const { program: qemu } = await ensureQemu(version, { onProgress });
  return await startBareVm({ ...options, qemu, name: `bare-${version}` });
}

/** Boots, and has each timer tick, each vCPU count, and all memory checked. */
async function countsAndVerifies(
  version: QemuVersion,
  options: Omit<BareVmOptions, "name" | "qemu">,
): Promise<void> {
  await using vm = await boot(version, options);
  await vm.counted(5);
  const first = await vm.status();
  assert.equal(first.timer, "pit");
  assert.equal(first.irq, options.irq ?? "pic");
  assert.ok(first.interrupts >= first.count && first.count >= 5);
  await vm.set({ timer: "apic", pages: 32 });
  await vm.counted(first.count + 10);
  const second = await vm.status();
  assert.equal(second.timer, "apic");
  assert.equal(second.ap > first.ap, options.cpus === 2, `${first.ap}, ${second.ap}`);
  const found = await vm.verify();
  assert.ok(found.ok, found.text);
  assert.ok(found.count >= second.count);
  assert.equal(found.boot, first.boot);
  const counts = vm.counts();
  counts.forEach((count, i) => assert.equal(count, i + 1, "no gap, from 1"));
}

for (const version of VERSIONS) {
  for (const options of BOOTS) {
    const what = `QEMU ${version}, ${options.machine}, ${options.cpus} vCPU`;
    Deno.test(`e2e: the bare guest counts and verifies: tcg, ${what}`, () => {
      return countsAndVerifies(version, { ...options, accelerator: "tcg" });
    });
    kvmTest(`e2e: the bare guest counts and verifies: kvm, ${what}`, () => {
      return countsAndVerifies(version, { ...options, accelerator: "kvm" });
    });
    kvmTest(`e2e: the bare guest counts and verifies: kvm, split irqchip, ${what}`, () => {
      return countsAndVerifies(version, {
        ...options,
        accelerator: "kvm",
        kernelIrqchip: "split",
      });
    });
  }
}

Deno.test("e2e: each dirtied page changes the sum, and a damaged byte is found", async () => {
  await using vm = await boot("11.1", { accelerator: "tcg", pages: 0, every: 10 });
  await vm.counted(10);
  assert.equal((await vm.verify()).sum, "00000000", "nothing was painted");
  await vm.set({ pages: 1 });
  const before = await vm.verify();
  await vm.counted(30);
  const after = await vm.verify();
  assert.ok(after.ok && after.sum !== before.sum, after.text);
  await vm.ask("spoil");
  const spoilt = await vm.verify();
  assert.ok(!spoilt.ok, spoilt.text);
  // Painting over it does not hide it: 1 MiB has 256 pages, of 16 cells each.
  await vm.set({ pages: 256, hz: 200 });
  await vm.counted((await vm.status()).count + 40);
  assert.match((await vm.verify()).text, /^verify BAD at=00200004 /);
});

Deno.test("e2e: the bare guest answers where its timer is dead, and stops and starts", async () => {
  await using vm = await boot("11.1", { accelerator: "tcg", timer: "none" });
  assert.equal((await vm.status()).interrupts, 0);
  await vm.set({ timer: "pit", hz: 18 });
  await vm.counted(3);
  await vm.ask("stop");
  const { count, interrupts } = await vm.status();
  while ((await vm.status()).interrupts < interrupts + 3);
  assert.equal((await vm.status()).count, count);
  await vm.ask("start");
  await vm.counted(count + 1);
  await assert.rejects(vm.ask("dance"), RangeError);
  await assert.rejects(vm.ask("cpus=2"), RangeError);
  await assert.rejects(vm.ask("pages=many"), RangeError);
});

Deno.test("e2e: QEMU's own firmware boots the bare guest too, and its words are checked", async () => {
  await using vm = await boot("7.2", { accelerator: "tcg", qemuFirmware: true });
  await vm.counted(3);
  await using wrong = await boot("7.2", { accelerator: "tcg", regionKiB: 64 * 1024 });
  await wrong.console.waitFor(/^panic: region must be whole pages, in KiB, and fit into RAM$/);
});

Deno.test("e2e: another boot has another id, and clears what the last one painted", async () => {
  await using vm = await boot("11.1", { accelerator: "tcg" });
  await vm.counted(3);
  const { boot: before } = await vm.status();
  await using qmp = await QmpClient.connect(vm.spareQmpPath);
  const from = vm.console.lines.length;
  await qmp.execute("system_reset");
  await vm.console.waitFor(/^count 3$/, { from });
  const found = await vm.verify();
  assert.ok(found.ok, found.text);
  assert.notEqual(found.boot, before);
});
