/** As `protect_kvm_e2e_test.ts`: every QEMU whose COLO kemari uses, thousands of checkpoints. */
import assert from "node:assert/strict";
import { kvmTest } from "../vms/kvm.ts";
import { BarePair } from "../testing/bare_pair.ts";
import { testKvmScenes, VERSIONS } from "../testing/kvm_scenes.ts";

for (const version of VERSIONS) testKvmScenes(version, 1000);

for (const version of ["7.2", "10.0"] as const) {
  kvmTest(`e2e: QEMU ${version} with a dirty ring is kept out of COLO, and lives`, async () => {
    const accelerator = "kvm,dirty-ring-size=4096";
    await using pair = await BarePair.boot(version, { accelerator, timer: "apic", pages: 2 });
    await pair.recv();
    await pair.secondary();
    const protect = pair.protect("--sync-interval", "20");
    const { mode } = await pair.syncs(5);
    assert.equal(mode, "snapshots");
    assert.match(protect.stderr, /aborts in COLO where KVM has a dirty ring/);
    await pair.assertRunning(pair.primary);
  });
}
