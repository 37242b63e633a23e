import { QemuError } from "../../errors.ts";
import type { QmpClient } from "../../host/vm/qmp_client.ts";
import { decodeMigrationStatus, queryMigration } from "../../qmp/migration_status.ts";
import { exists, shellQuote } from "../provision/cache_dir.ts";
import { migrateStopped } from "./stopped_migration.ts";
import { until } from "../program/until.ts";

/**
 * Stops a VM and has QEMU write its stream to a file, which is whole when this returns.
 *
 * @throws {QemuError} if QEMU does not. @throws {TransportError} if that takes longer than a minute.
 */
export async function saveVm(qmp: QmpClient, path: string, signal: AbortSignal): Promise<void> {
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": 2 ** 40 });
  // QEMU has completed when all is in the pipe, and not yet in the file.
  const [whole, part] = [path, `${path}.part`].map(shellQuote);
  await migrateStopped(qmp, `exec:cat > ${part} && mv ${part} ${whole}`);
  await until(
    async () => {
      const { phase, error } = decodeMigrationStatus(await qmp.run(queryMigration()));
      if (phase === "completed") return await exists(path);
      if (phase === "running" || phase === "none") return false;
      throw new QemuError("migrate", "GenericError", `the VM was not saved: ${error ?? phase}`);
    },
    "QEMU to save its VM",
    { signal },
  );
}
