/** A standby's command started late: with all of the VM's RAM on its stdin. */
import { QemuError } from "../../errors.ts";
import type { Replica } from "../../replica/replica.ts";
import { type OnProgress, type StreamConsumer, writeToCommand } from "./activation.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import type { LoadTimes } from "./standby.ts";
import { coldCommand } from "./standby_command.ts";
import { delay } from "../system/delay.ts";

const LOAD_MS = 60_000;
const POLL_MS = 2;

/**
 * Starts the command as an ordinary incoming QEMU, gives it the whole stream, and waits until it has
 * loaded that. It runs by itself then, unless the VM was paused.
 *
 * @throws {QemuError} if it ends before; no VM has run then.
 */
export async function startCold(
  replica: Replica,
  command: string,
  signal: AbortSignal,
  onProgress: OnProgress,
): Promise<StreamConsumer & LoadTimes> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-cold-" });
  const qmp = `${folder}/qmp`;
  try {
    const consumer = await writeToCommand(
      replica,
      "--standby",
      `${coldCommand(command, qmp)} >&2`,
      signal,
      onProgress,
    );
    let ended: number | undefined;
    consumer.exitCode.then((code) => ended = code);
    const begun = performance.now();
    let client: QmpClient | undefined;
    try {
      while (performance.now() - begun < LOAD_MS) {
        if (ended !== undefined) break;
        client ??= await QmpClient.connect(qmp).catch(() => undefined);
        const answer = await client?.execute("query-status").catch(() => undefined);
        const status = (answer as { status?: unknown } | undefined)?.status;
        if (status !== undefined && status !== "inmigrate") {
          const now = performance.now();
          return { ...consumer, loadedAt: now, runningAt: now };
        }
        await delay(POLL_MS);
      }
    } finally {
      await client?.close();
    }
    if (ended === undefined) {
      consumer.kill();
      throw new QemuError("standby", "Timeout", `the VM's state is not loaded after ${LOAD_MS} ms`);
    }
    throw new QemuError(
      "--standby",
      "Ended",
      `the command took the VM's state and ended with ${ended}`,
      { party: "standby", hint: "does it start the same machine? try it by hand" },
    );
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
