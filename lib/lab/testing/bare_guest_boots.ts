/** For tests: the bare guest on a QEMU, under TCG and KVM. */
import assert from "node:assert/strict";
import { type BareVmOptions, startBareVm } from "../bare_guest/bare_vm.ts";
import { ensureQemu, type QemuSeries } from "../provision/qemu.ts";
import { kvmTest } from "../vms/kvm.ts";

const onProgress = (line: string) => console.error(line);

type Boot = Omit<BareVmOptions, "name" | "qemu" | "accelerator">;

/** Each boot has both timers, one after the other. */
const BOOTS: readonly Boot[] = [
  { machine: "pc", timer: "pit", cpus: 2 },
  { machine: "q35", timer: "pit", irq: "apic", cpus: 1 },
];

/** Boots a bare guest. */
export async function bootBare(
  version: QemuSeries,
  options: Omit<BareVmOptions, "name" | "qemu">,
) {
  const { program: qemu } = await ensureQemu(version, { onProgress });
  return await startBareVm({ ...options, qemu, name: `bare-${version}` });
}

async function countsAndVerifies(
  version: QemuSeries,
  options: Omit<BareVmOptions, "name" | "qemu">,
): Promise<void> {
  await using vm = await bootBare(version, options);
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

/** Boots, and has each timer tick, each vCPU count, and all memory checked, under TCG and KVM. */
export function testBareGuest(version: QemuSeries): void {
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
