import assert from "node:assert/strict";
import { ensureQemu, type QemuSeries } from "../lab/provision/qemu.ts";
import { runKemari } from "../lab/program/run_kemari.ts";
import { startVm } from "../lab/vms/vm.ts";

const MODES: readonly (readonly [QemuSeries, string])[] = [
  ["11.1", "colo"],
  ["10.0", "snapshot"],
  ["7.2", "snapshot"],
];

for (const [version, mode] of MODES) {
  Deno.test(`kemari doctor finds out what a real QEMU ${version} can do`, async () => {
    const install = await ensureQemu(version);
    const ended = await runKemari(["doctor", "--json", "--qemu", install.program]);
    assert.deepEqual([ended.code, ended.stderr], [0, ""]);
    const { qemu, vm, protectable } = JSON.parse(ended.stdout);
    assert.deepEqual([vm, protectable, qemu.underTcg.mode], [null, true, mode]);
    assert.ok(qemu.support.version.text.startsWith(install.fullVersion));
    assert.deepEqual(qemu.support.blockers, []);
    assert.equal("x-colo" in qemu.support.capabilities, true);
  });

  Deno.test(`kemari doctor --qmp looks at a running ${version} and leaves it running`, async () => {
    const install = await ensureQemu(version);
    await using machine = await startVm({
      qemu: install.program,
      name: "doctor",
      memoryMiB: 64,
    });
    for (let round = 1; round <= 2; round++) {
      const ended = await runKemari(["doctor", "--json", "--qmp", machine.qmpPath]);
      assert.deepEqual([ended.code, ended.stderr], [0, ""]);
      const report = JSON.parse(ended.stdout);
      assert.deepEqual([report.mode, report.vm.memoryBytes], [mode, 64 * 2 ** 20]);
      assert.match(report.vm.machine, /^pc-i440fx-/);
      assert.equal(report.vm.support.runState, "running");
      assert.equal(report.vm.support.accelerator, "tcg");
    }
  });
}

Deno.test("kemari doctor --qmp names what keeps a real VM from being protected", async () => {
  const install = await ensureQemu("11.1");
  await using machine = await startVm({
    qemu: install.program,
    name: "doctor",
    memoryMiB: 64,
    args: ["left", "right"].flatMap((id) => [
      ...["-object", `memory-backend-ram,id=${id},size=32M`, "-numa", `node,memdev=${id}`],
    ]),
  });
  const { code, stdout, stderr } = await runKemari(["doctor", "--qmp", machine.qmpPath]);
  assert.equal(code, 5);
  assert.match(stdout, /\n {2}blocker +Under tcg, QEMU loses sight of writes/);
  assert.match(stderr, /^kemari: QEMU, doctor: Under tcg, QEMU loses sight of writes/);
});

Deno.test("kemari doctor --qmp warns of a machine that offers S3, and knows when it is off", async () => {
  for (const version of ["7.2", "11.1"] as const) {
    const { program } = await ensureQemu(version);
    for (const [machine, device] of [["pc", "PIIX4_PM"], ["q35", "ICH9-LPC"]]) {
      for (const off of [false, true]) {
        const option = `${device}.disable_s3=1`;
        await using vm = await startVm({
          qemu: program,
          name: "doctor",
          machine,
          memoryMiB: 64,
          args: off ? ["-global", option] : [],
        });
        const { stdout } = await runKemari(["doctor", "--qmp", vm.qmpPath]);
        assert.equal(
          stdout.includes(`-global ${option}`),
          !off,
          `${version} ${machine}: ${stdout}`,
        );
      }
    }
  }
});
