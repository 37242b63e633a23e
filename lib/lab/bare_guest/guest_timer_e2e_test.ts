/** What QEMU tells of a guest's timer, on every version. */

import assert from "node:assert/strict";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import {
  FOOTER_BYTES,
  sectionHeaderBytes,
  walkDeviceState,
} from "../../qemu/devices/device_state.ts";
import { StreamParser } from "../../qemu/stream_parser.ts";
import { parseVmdesc } from "../../qemu/devices/vmdesc.ts";
import { GUEST_TIMER_QUERIES, judgeGuestTimer } from "../../qmp/guest_timer.ts";
import { startMigration } from "../../qmp/migration.ts";
import { decodeMigrationStatus, queryMigration } from "../../qmp/migration_status.ts";
import { kvmTest } from "../vms/kvm.ts";
import { ensureQemu, type QemuSeries } from "../provision/qemu.ts";
import { type BareVm, type BareVmOptions, startBareVm } from "./bare_vm.ts";
import { until } from "../program/until.ts";

const VERSIONS: readonly QemuSeries[] = ["5.2", "7.2", "10.0", "11.1"];

/** Boots, and asks; `judge` may be called while the VM runs, `judgeStream` once. */
async function boot(version: QemuSeries, options: Omit<BareVmOptions, "name" | "qemu">) {
  const { program: qemu } = await ensureQemu(version);
  const stack = new AsyncDisposableStack();
  const vm: BareVm = stack.use(await startBareVm({ ...options, qemu, name: "timer" }));
  await vm.counted(2);
  const qmp = stack.use(await QmpClient.connect(vm.spareQmpPath));
  const judge = async (pitState?: Uint8Array) => {
    const unattached = await qmp.run(GUEST_TIMER_QUERIES.unattached);
    const interrupts = await qmp.run(GUEST_TIMER_QUERIES.interrupts);
    return judgeGuestTimer({ unattached, interrupts, pitState });
  };
  const judgeStream = async () => {
    const path = `${vm.vm.folder}/stream`;
    await qmp.run(startMigration(`exec:cat >${path}`));
    await until(async () => {
      const { phase } = decodeMigrationStatus(await qmp.run(queryMigration()));
      return phase === "completed";
    }, "the VM to be written");
    return await judge(pitStateOf(await Deno.readFile(path)));
  };
  return { vm, judge, judgeStream, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

/** The fields of the PIT in a plain stream. */
function pitStateOf(stream: Uint8Array): Uint8Array {
  let state = new Uint8Array();
  let json = new Uint8Array();
  const parser = new StreamParser({
    event(event) {
      // What a visitor is handed is valid during the call only.
      if (event.kind === "device-state") state = event.state.slice();
      if (event.kind === "vmdescription") json = event.json.slice();
    },
    page() {},
    mark() {},
  });
  parser.parse(stream, 0, stream.length);
  const section = walkDeviceState(state, parseVmdesc(json, 0), 0)
    .find(({ name }) => name === "i8254")!;
  assert.equal(section.version, 3);
  const start = section.offset + sectionHeaderBytes(section.name.length);
  return state.subarray(start, section.offset + section.sizeBytes - FOOTER_BYTES);
}

for (const version of VERSIONS) {
  kvmTest(`e2e: QEMU ${version} tells whether a guest lives on KVM's own PIT`, async () => {
    await using pic = await boot(version, { accelerator: "kvm", timer: "pit", hz: 50 });
    assert.equal((await pic.judge()).pit, "unknown", "without the PIT's state");
    await pic.vm.set({ timer: "apic" });
    const other = await pic.judge();
    assert.deepEqual([other.inKernelPit, other.pit, other.warning], [true, "none", undefined]);
    await pic.vm.set({ timer: "pit" });
    const ticking = await pic.judgeStream();
    assert.deepEqual([ticking.pit, ticking.periodMs?.toFixed(1)], ["periodic", "20.0"]);
    assert.match(ticking.warning!, /\(20 ms\)/);

    const slow = { accelerator: "kvm", timer: "pit", hz: 18, irq: "apic" } as const;
    await using ioapic = await boot(version, { ...slow, machine: "q35" });
    const slowly = await ioapic.judgeStream();
    assert.deepEqual([slowly.pit, slowly.periodMs?.toFixed(1)], ["periodic", "54.9"]);
    assert.match(slowly.warning!, /\(54\.9 ms\)/);

    await using split = await boot(version, { ...slow, kernelIrqchip: "split" });
    const qemus = await split.judgeStream();
    assert.deepEqual(
      [qemus.inKernelPit, qemus.pit, qemus.warning],
      [false, "periodic", undefined],
    );
  });
}
