/**
 * Migrations of VMs that stand still. Under TCG one that runs may lose a page, or its life, whoever
 * migrates it: lib/host/vm/still_vm.ts tells why. Measured with a QEMU 7.2 and another and nothing
 * between them: of 410 migrations of a guest that does little, one left it dead.
 */
import { QemuError, TransportError } from "../../errors.ts";
import { QmpClient } from "../../host/vm/qmp_client.ts";
import { queryStatus, resumeVm, startMigration, stopVm } from "../../qmp/migration.ts";
import type { Vm } from "./vm.ts";
import { delay } from "../../host/system/delay.ts";

const LOAD_MS = 60_000;
const POLL_MS = 20;

/**
 * Stops the VM and starts its migration, which is under way when this returns. In COLO the VM runs
 * again when the other side has it.
 */
export async function migrateStopped(qmp: QmpClient, uri: string): Promise<void> {
  await qmp.run(stopVm());
  await qmp.run(startMigration(uri));
}

/**
 * Waits until a QEMU has loaded a VM that was stopped for its migration, and lets it run.
 *
 * @throws {QemuError} with QEMU's words, if the VM does not arrive, or arrives in another state.
 */
export async function resumeArrived(vm: Vm, signal?: AbortSignal): Promise<void> {
  try {
    await using qmp = await QmpClient.connect(vm.spareQmpPath);
    const end = performance.now() + LOAD_MS;
    for (;;) {
      const { status } = await qmp.run(queryStatus()) as { status?: string };
      if (status === "paused") break;
      signal?.throwIfAborted();
      if (status !== "inmigrate" || performance.now() > end) {
        throw new TransportError(vm.name, "read", `the VM is "${status}", not paused`);
      }
      await delay(POLL_MS);
    }
    await qmp.run(resumeVm());
  } catch (cause) {
    if (signal?.aborted) throw cause;
    const message = `the VM did not arrive: ${(cause as Error).message}; ${vm.stderr.trim()}`;
    throw new QemuError("migrate-incoming", "GenericError", message, { cause });
  }
}
