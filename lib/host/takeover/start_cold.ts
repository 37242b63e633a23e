/** Starts a standby's command at the takeover, with the whole state on its stdin. */
import { getLogger } from "@logtape/logtape";
import { QemuError } from "../../errors.ts";
import type { Replica } from "../../replica/secondary/replica.ts";
import {
  type OnGiven,
  type OnProgress,
  type StreamConsumer,
  writeToCommand,
} from "./write_replica.ts";
import { delay } from "../system/delay.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import type { LoadTimes } from "./standby.ts";
import { coldCommand } from "./standby_command.ts";

const log = getLogger(["kemari", "standby"]);

/** How often a slow load is logged. */
const SLOW_MS = 60_000;
const POLL_MS = 2;

/**
 * Starts the command as an ordinary incoming QEMU, gives it the whole stream, and waits until QEMU
 * has loaded it. The VM then runs by itself, unless it was paused.
 *
 * @throws {QemuError} if QEMU ends before; no VM has run then.
 */
export async function startCold(
  replica: Replica,
  command: string,
  signal: AbortSignal,
  onProgress: OnProgress,
  onGiven: OnGiven,
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
      onGiven,
    );
    let ended: number | undefined;
    consumer.exitCode.then((code) => ended = code);
    const begun = performance.now();
    let client: QmpClient | undefined;
    try {
      // The VM runs by itself as soon as it is loaded: if QEMU is slow to answer, it may run
      // already.
      let toldMs = SLOW_MS;
      while (ended === undefined) {
        if (performance.now() - begun > toldMs) {
          log.warn("the VM's state is not loaded after {seconds} s; kemari waits on", {
            seconds: toldMs / 1000,
          });
          toldMs += SLOW_MS;
        }
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
    signal.throwIfAborted();
    onGiven(false);
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
