/** For tests on real QEMU, under TCG or KVM: a bare guest to protect, and what must hold. */
import assert from "node:assert/strict";
import { KemariPair } from "./kemari_pair.ts";
import { ensureQemu, type QemuSeries } from "../provision/qemu.ts";
import type { StandbyGuest } from "../vms/standby_guest.ts";
import {
  type BareVm,
  type BareVmOptions,
  type HostVm,
  prepareBareStandby,
  startBareVm,
} from "../bare_guest/bare_vm.ts";

/** Both VMs of a pair. */
export type PairedMachine = Omit<BareVmOptions, "name" | "qemu" | "incoming" | "stdin">;

/** A bare guest that counts, and a folder for the sockets of both ends. */
export class BarePair extends KemariPair<BareVm> {
  #boot = "";

  private constructor(
    folder: string,
    primary: BareVm,
    private readonly machine: PairedMachine & { readonly qemu: string },
  ) {
    super(folder, primary, machine.every);
  }

  /**
   * Boots the primary, and waits until its guest answers.
   *
   * @param options.waits It is started stopped: its guest is not waited for.
   */
  static async boot(
    version: QemuSeries,
    settings: PairedMachine,
    { waits = false } = {},
  ): Promise<BarePair> {
    const { program: qemu } = await ensureQemu(version);
    const machine = { ...settings, qemu };
    const folder = await Deno.makeTempDir({ prefix: "kemari-pair-" });
    const pair = new BarePair(
      folder,
      await startBareVm({ ...machine, name: "primary" }),
      machine,
    );
    if (!waits) pair.#boot = (await pair.primary.status()).boot;
    return pair;
  }

  protected override startSecondary(stdin: { readonly path: string }): Promise<BareVm> {
    return startBareVm({ ...this.machine, name: "secondary", incoming: "fd:0", stdin });
  }

  /**
   * A standby that `kemari recv` starts: {@link recvWithStandby} with its `vm`.
   *
   * @param differently What it has unlike the primary.
   */
  async standby(differently: Partial<PairedMachine> = {}): Promise<BareVm<StandbyGuest>> {
    return this.own(
      await prepareBareStandby({ ...this.machine, ...differently, name: "standby" }),
    );
  }

  /**
   * Checks that the guest goes on in the secondary: same boot, every byte of its memory, no gap in
   * the count, and its timers tick on.
   *
   * @param slack By how many numbers said it may have gone back.
   */
  async assertTakenOver(secondary: BareVm<HostVm>, slack = 10): Promise<void> {
    await this.assertCountsOn(secondary, slack);
    const found = await secondary.verify();
    assert.ok(found.ok, found.text);
    assert.equal(found.boot, this.#boot);
    const before = await secondary.status();
    await this.assertRunning(secondary);
    const after = await secondary.status();
    if (this.machine.cpus === 2) {
      assert.ok(after.ap > before.ap, `the second vCPU stands still at ${after.ap}`);
    }
  }
}
