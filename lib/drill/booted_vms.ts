/**
 * VMs that have booted once, for the runs of a drill to go on from: of a run of one second, half
 * the time would be its guest's boot.
 */
import { QmpClient } from "../host/vm/qmp_client.ts";
import { startVm, type VmOptions } from "../lab/vms/vm.ts";
import { saveVm } from "../lab/vms/save_vm.ts";
import { WorkFolder } from "../lab/program/work_folder.ts";

/** A VM that has booted and done nothing since. */
interface BootedVm {
  /** Path of its disk. */
  readonly image: string;
  /** Path of a migration stream: the VM stands still in it. */
  readonly stream: string;
}

/** How to boot a VM whose disk is at a path. */
export interface Boot {
  makeImage(path: string): Promise<void>;
  machine(image: string): VmOptions;
}

/** The booted VMs of a drill, by name. Whoever makes it disposes of it. */
export class BootedVms implements AsyncDisposable {
  readonly #saved = new Map<string, Promise<BootedVm>>();
  readonly #folder = new WorkFolder();

  constructor(readonly signal: AbortSignal) {}

  /**
   * A booted VM. The first who asks for a name lets it boot; who asks meanwhile waits.
   *
   * @throws {KemariError} if it does not boot, or QEMU does not save it.
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
