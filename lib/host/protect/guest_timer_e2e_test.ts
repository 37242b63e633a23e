/** Guests whose clock is KVM's own PIT, which QEMU starts anew behind every checkpoint. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair, type PairedMachine } from "../../lab/testing/bare_pair.ts";
import { kvmTest } from "../../lab/vms/kvm.ts";
import { KemariProcess } from "../../lab/program/kemari_process.ts";
import { delay } from "../system/delay.ts";

const WARNING =
  /The guest's clock is KVM's own 8254 timer.*\((54\.9|20) ms\).*kernel-irqchip=split/;

async function protectedPair(machine: Partial<PairedMachine>, intervalMs: number) {
  const pair = await BarePair.boot("11.1", { accelerator: "kvm", timer: "pit", ...machine });
  await pair.recv();
  await pair.secondary();
  const protect = pair.protect("--sync-interval", String(intervalMs));
  await pair.syncs(10);
  return { pair, protect };
}

/** Ticks within so many seconds. */
async function ticksWithin(pair: BarePair, seconds: number): Promise<number> {
  const before = (await pair.primary.status()).count;
  await delay(seconds * 1000);
  return (await pair.primary.status()).count - before;
}

kvmTest("e2e: a guest on KVM's PIT is warned of, and ticks on where its periods fit", async () => {
  const { pair, protect } = await protectedPair({ hz: 18 }, 200);
  await using _ = pair;
  await protect.waitFor(WARNING);
  await protect.waitFor(/checkpoints every \d+ ms instead of 200, so that it keeps its ticks/);
  // 18.2 unprotected.
  assert.ok(await ticksWithin(pair, 2) > 2 * 10);
});

sideBySide("e2e: of guests in whose checkpoints no whole periods fit", (scene) => {
  scene("one on KVM's PIT is warned of", async () => {
    const { pair, protect } = await protectedPair({ hz: 50 }, 10);
    await using _ = pair;
    await protect.waitFor(WARNING);
    await pair.syncs(200);
    assert.doesNotMatch(protect.stderr, /so that it keeps its ticks/);
  }, { needsKvm: true });

  for (
    const [name, machine] of [
      ["on the local APIC's timer", { timer: "apic" }],
      ["on a PIT in QEMU", { kernelIrqchip: "split" }],
      ["on the PIT under tcg", { accelerator: "tcg" }],
    ] as const
  ) {
    scene(`one ${name} is not warned of`, async () => {
      const { pair, protect } = await protectedPair(machine, 10);
      await using _ = pair;
      // The guest's timer is looked at after two seconds.
      await delay(2500);
      await pair.syncs(100);
      assert.doesNotMatch(protect.stderr, /8254/);
    }, { needsKvm: true });
  }
});

kvmTest("e2e: doctor tells of KVM's PIT, unless the guest has masked its interrupt", async () => {
  for (const [timer, isTold] of [["pit", true], ["apic", false]] as const) {
    await using pair = await BarePair.boot("11.1", { accelerator: "kvm", timer });
    await using doctor = new KemariProcess(["doctor", "--qmp", pair.primary.qmpPath]);
    const { code, stdout } = await doctor.ended();
    assert.equal(code, 0);
    const told = /next: The VM has KVM's own 8254 timer.*Add kernel-irqchip=split/;
    assert.equal(told.test(new TextDecoder().decode(stdout)), isTold, timer);
  }
});
