/** For tests on real QEMU: a Linux guest to protect, a place for the secondary, and what must hold. */
import assert from "node:assert/strict";
import { ensureGuest } from "../guest/guest.ts";
import { KemariPair } from "./kemari_pair.ts";
import { ensureQemu, type QemuSeries } from "../provision/qemu.ts";
import { startBooted } from "../vms/start_booted.ts";
import { StandbyGuest } from "../vms/standby_guest.ts";
import { startVm, type Vm } from "../vms/vm.ts";

export { failover } from "./kemari_pair.ts";

/** A VM as far as its guest can be heard and asked. */
export type Guest = Pick<Vm, "name" | "console" | "run">;

const TIMEOUT_MS = 60_000;
const READ_BOOT_ID = "cat /proc/sys/kernel/random/boot_id";

/** A booted guest that counts on its console, and a folder for the sockets of both ends. */
export class ProtectedPair extends KemariPair<Vm> {
  #bootId = "";

  private constructor(
    folder: string,
    primary: Vm,
    private readonly machine: Omit<Parameters<typeof startVm>[0], "name">,
  ) {
    super(folder, primary);
  }

  /**
   * A primary that has booted, with 16 MiB of random data in memory.
   *
   * @param args Where they name files, the guest boots by itself; else it goes on from a boot that
   *   others have made.
   */
  static async boot(
    version: QemuSeries,
    args: readonly string[] = [],
    machineType?: string,
  ): Promise<ProtectedPair> {
    const isOfItsOwn = args.some((arg) => arg.includes("/"));
    const pair = await ProtectedPair.#make(
      isOfItsOwn ? startVm : startBooted,
      version,
      args,
      machineType,
    );
    if (isOfItsOwn) await pair.primary.ready();
    await pair.#readBootId();
    return pair;
  }

  /** One that boots by itself, which {@link booted} waits for. */
  static start(version: QemuSeries, args: readonly string[] = []): Promise<ProtectedPair> {
    return ProtectedPair.#make(startVm, version, args);
  }

  static async #make(
    startPrimary: typeof startVm,
    version: QemuSeries,
    args: readonly string[],
    machineType?: string,
  ): Promise<ProtectedPair> {
    const qemu = await ensureQemu(version);
    const guest = await ensureGuest();
    const folder = await Deno.makeTempDir({ prefix: "kemari-pair-" });
    const append = "kemari.count=1 kemari.fill=16";
    const machine = {
      qemu: qemu.program,
      guest,
      memoryMiB: 192,
      append,
      args,
      machine: machineType,
    };
    const primary = await startPrimary({ ...machine, name: "primary" });
    return new ProtectedPair(folder, primary, machine);
  }

  /** Waits until the primary's guest is up. */
  async booted(): Promise<void> {
    await this.primary.ready();
    await this.#readBootId();
  }

  async #readBootId(): Promise<void> {
    const { output } = await this.primary.run(READ_BOOT_ID, { timeoutMs: TIMEOUT_MS });
    this.#bootId = output.trim();
  }

  protected override startSecondary(stdin: { readonly path: string }): Promise<Vm> {
    return startVm({ ...this.machine, name: "secondary", incoming: "fd:0", stdin });
  }

  /** The guest of a standby that `kemari recv` starts; it may differ from the primary. */
  async standbyGuest(
    differently: { machine?: string; memoryMiB?: number; args?: readonly string[] } = {},
  ): Promise<StandbyGuest> {
    const options = { ...this.machine, ...differently, name: "standby" };
    return this.own(await StandbyGuest.prepare(options));
  }

  /** Checks that the guest goes on in the secondary: same boot, same memory, no gap in the count. */
  async assertTakenOver(secondary: Guest, slack = 10): Promise<void> {
    await this.assertCountsOn(secondary, slack);
    const sum = await secondary.run("sha256sum -c /mem/fill.sha256", { timeoutMs: TIMEOUT_MS });
    assert.equal(sum.code, 0, sum.output);
    const boot = await secondary.run(READ_BOOT_ID);
    assert.equal(boot.output.trim(), this.#bootId);
  }
}
