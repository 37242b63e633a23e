import { getLogger } from "@logtape/logtape";
import { QemuError } from "../../errors.ts";
import type { QmpClient } from "../vm/qmp_client.ts";
import type { StandbyProcess } from "./standby_process.ts";
import { delay } from "../system/delay.ts";

const log = getLogger(["kemari", "standby"]);

/** How often a QEMU that is slow to let its VM run is logged. */
const SLOW_RUN_MS = 5000;
/** The longest time that a timer takes. */
const NO_LIMIT_MS = 2 ** 31 - 1;
/**
 * If QEMU's connection has ended, then QEMU has either ended within this time too, or goes on
 * without the connection.
 */
const END_MS = 1000;

/**
 * Has a QEMU that has loaded a state let its VM run, and waits until the VM runs. From the command
 * on there is no other instance of the VM: so a busy host may take as long as it needs.
 *
 * @returns QEMU's reason if it refuses: the VM has not run then. Otherwise undefined.
 * @throws {KemariError} if QEMU ends: the VM may have run.
 */
export async function letRun(
  process: StandbyProcess,
  client: QmpClient,
): Promise<QemuError | undefined> {
  const begun = performance.now();
  const resumed = client.waitEvent("RESUME", NO_LIMIT_MS);
  resumed.catch(() => {});
  const slow = setInterval(() =>
    log.warn(
      "the standby was told to run {seconds} s ago, and has not confirmed it; kemari waits " +
        "on, since the VM is nowhere else",
      { seconds: Math.round((performance.now() - begun) / 1000) },
    ), SLOW_RUN_MS);
  const run = async () => {
    await client.execute("cont", undefined, { timeoutMs: NO_LIMIT_MS });
    await resumed;
    return true;
  };
  try {
    const runs = await Promise.race([run(), process.exitCode.then(() => false)]);
    if (!runs) throw await process.failure("wait");
  } catch (error) {
    if (error instanceof QemuError && !process.hasEnded) return error;
    await Promise.race([process.exitCode, delay(END_MS)]);
    if (process.hasEnded) throw await process.failure("wait");
    log.warn("the standby was told to run, and its QMP socket has closed since: {reason}", {
      reason: (error as Error).message,
    });
  } finally {
    clearInterval(slow);
  }
}
