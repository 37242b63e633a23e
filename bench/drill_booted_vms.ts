/**
 * VMs that have booted once, for the runs of a drill to go on from: of a run of one second, half
 * the time would be its guest's boot.
 */
import { QemuError } from "../lib/errors.ts";
import { QmpClient } from "../lib/host/qmp_client.ts";
import {
  decodeMigrationStatus,
  queryMigration,
  startMigration,
  stopVm,
} from "../lib/qmp/migration.ts";
import { shellQuote } from "../fixtures/provision/cache_dir.ts";
import { startVm, type VmOptions } from "../fixtures/vm.ts";
import { until } from "./drill_process.ts";

/** A VM that has booted and done nothing since. */
export interface BootedVm {
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

  private constructor(readonly folder: string, readonly signal: AbortSignal) {}

  static async make(signal: AbortSignal): Promise<BootedVms> {
    return new BootedVms(await Deno.makeTempDir({ prefix: "kemari-booted-" }), signal);
  }

  /**
   * A booted VM. The first who asks for a name lets it boot; who asks meanwhile waits.
   *
   * @throws {KemariError} if it does not boot, or QEMU does not save it.
   */
  get(name: string, boot: Boot): Promise<BootedVm> {
    let saved = this.#saved.get(name);
    if (saved === undefined) {
      saved = this.#boot(`${this.folder}/${name}`, boot);
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
    // A VM that runs meanwhile may lose a page under TCG.
    await qmp.run(stopVm());
    await qmp.run(startMigration(`exec:cat > ${shellQuote(stream)}`));
    await until(async () => {
      const { phase, error } = decodeMigrationStatus(await qmp.run(queryMigration()));
      if (phase === "completed") return true;
      if (phase === "running" || phase === "none") return false;
      throw new QemuError("migrate", "GenericError", `the VM was not saved: ${error ?? phase}`);
    }, this.signal);
    return { image, stream };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled(this.#saved.values());
    await Deno.remove(this.folder, { recursive: true });
  }
}
