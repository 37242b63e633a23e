/** How a QEMU is brought into COLO, on either side of a pair. */
import { QemuError } from "../../lib/errors.ts";
import type { QmpClient } from "../../lib/host/vm/qmp_client.ts";
import { delay } from "../../lib/host/system/delay.ts";

const COLO_TIMEOUT_MS = 30_000;
const POLL_MS = 50;

/** Makes the next migration, of either side, a COLO one. */
export async function prepareColo(client: QmpClient, checkpointDelayMs: number): Promise<void> {
  await client.execute("migrate-set-capabilities", {
    capabilities: [
      { capability: "return-path", state: true },
      { capability: "x-colo", state: true },
    ],
  });
  await client.execute("migrate-set-parameters", {
    "max-bandwidth": 2 ** 40,
    "x-checkpoint-delay": checkpointDelayMs,
  });
}

/** Waits until the primary's first pass is over. */
export async function inColo(client: QmpClient, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + COLO_TIMEOUT_MS;
  for (;;) {
    signal.throwIfAborted();
    const { status, "error-desc": reason } = await client.execute("query-migrate") as {
      status: string;
      "error-desc"?: string;
    };
    if (status === "colo") return;
    if (status === "failed" || performance.now() > deadline) {
      const why = reason === undefined ? "" : `: ${reason}`;
      throw new QemuError("migrate", "GenericError", `no COLO: the migration is "${status}"${why}`);
    }
    await delay(POLL_MS);
  }
}
