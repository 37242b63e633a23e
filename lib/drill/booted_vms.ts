/**
 * VMs that have booted once, from which a drill's runs start: a boot would be half of the time of a
 * short run.
 */
import { QmpClient } from "../host/vm/qmp_client.ts";
import { startVm, type VmOptions } from "../lab/vms/vm.ts";
import { saveVm } from "../lab/vms/save_vm.ts";
import { WorkFolder } from "../lab/program/work_folder.ts";

/** A VM that has booted and has done nothing else. */
interface BootedVm {
  /** Path of its disk. */
  readonly image: string;
  /** Path of the migration stream with the VM's state after the boot. */
  readonly stream: string;
}

/** How to boot a VM whose disk is at a path. */
export interface Boot {
  makeImage(path: string): Promise<void>;
  machine(image: string): VmOptions;
}

/** The booted VMs of a drill, by name. Its creator disposes of it. */
export class BootedVms implements AsyncDisposable {
  readonly #saved = new Map<string, Promise<BootedVm>>();
  readonly #folder = new WorkFolder();

  constructor(readonly signal: AbortSignal) {}

  /**
   * A booted VM. The first call for a name boots the VM; calls for it meanwhile wait.
   *
   * @throws {KemariError} if the VM does not boot, or QEMU does not save it.
   */
  get(name: string, boot: Boot): Promise<BootedVm> {
    let saved = this.#saved.get(name);
    if (saved === undefined) {
      saved = this.#boot(`${this.#folder.path}/${name}`, boot);
      this.#saved.set(name, saved);
    }
    return saved;
  }

  async #boot(stem: string, boot: Boot): Promise<BootedVm> {
    const image = `${stem}.img`;
    const stream = `${stem}.vm`;
    await boot.makeImage(image);
    await using vm = await startVm(boot.machine(image));
    await vm.ready();
    await using qmp = await QmpClient.connect(vm.spareQmpPath);
    await saveVm(qmp, stream, this.signal);
    return { image, stream };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#saved.values());
    this.#folder[Symbol.dispose]();
  }
}
