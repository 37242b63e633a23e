/**
 * A second process that outlives a killed `kemari protect`.
 *
 * A VM in COLO stands still once its secondary stops answering, until QEMU is told that the
 * secondary is lost. If kemari itself is killed, it cannot tell QEMU: so the guardian holds the
 * other end of a pipe, and when the pipe breaks without a farewell, the guardian tells QEMU.
 */
import { getLogger } from "@logtape/logtape";
import { QemuError } from "../../errors.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { type OnSecondaryLoss, releaseVm, runState, staysInColo } from "../vm/release_vm.ts";
import { putBackSettings, readSavedSettings } from "../vm/saved_settings.ts";
import { selfCommand } from "../system/self_command.ts";
import { wasStandingStill } from "../vm/still_vm.ts";
import { delay } from "../system/delay.ts";

const log = getLogger(["kemari", "guard"]);

const FAREWELL = "bye";
/** A QEMU that does not answer for longer is logged, and waited for. */
const SILENT_MS = 10_000;
const GIVE_UP_MS = 600_000;
/**
 * The pause before a guardian that has ended is replaced: what ended it may end the next one, too.
 */
const RESTART_MS = 500;
const MOST_RESTART_MS = 60_000;
/** How often to look at a VM that has to stay in COLO; the monitor is free for others meanwhile. */
const LATER_MS = 1000;

/** The guardian, for its owner. */
export interface Guardian {
  /** Sets what the guardian does with the VM from now on. */
  decide(action: OnSecondaryLoss): void;
  /** Dismisses the guardian: QEMU knows everything. */
  dismiss(): Promise<void>;
  /**
   * Leaves it to the guardian to tell QEMU, which has not answered this process, and to remove the
   * folder.
   */
  inherit(): Promise<void>;
}

/**
 * Starts a guardian for this process, in a session of its own, so that Ctrl-C does not reach it.
 *
 * @param folder A temporary folder, which the guardian removes if this process cannot.
 */
export function startGuardian(
  qmp: string,
  action: OnSecondaryLoss,
  folder: string,
): Guardian {
  let decided = action;
  let isOver = false;
  const start = () => {
    const child = new Deno.Command("setsid", {
      args: selfCommand(["guard", qmp, decided, folder]),
      stdin: "piped",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
    const writer = child.stdin.getWriter();
    writer.closed.catch(() => {});
    return { child, writer };
  };
  let current = start();
  let isThere = true;
  /** Without a guardian the VM would stand still for ever if this process were killed. */
  const watch = async () => {
    for (let delayMs = RESTART_MS; !isOver; delayMs = Math.min(2 * delayMs, MOST_RESTART_MS)) {
      const { code, signal } = await current.child.status;
      if (isOver) return;
      isThere = false;
      log.warn("the guardian has ended ({how}): another one is started", { how: signal ?? code });
      await delay(delayMs);
      if (isOver) return;
      current = start();
      isThere = true;
    }
  };
  watch().catch((error) => log.error("no guardian: {reason}", { reason: error.message }));
  return {
    decide(now) {
      if (now === decided) return;
      decided = now;
      // A guardian that is gone cannot act on this; the next one is started with it.
      current.writer.write(new TextEncoder().encode(`${now}\n`)).catch(() => {});
    },
    async dismiss() {
      isOver = true;
      try {
        await current.writer.write(new TextEncoder().encode(`${FAREWELL}\n`));
        await current.writer.close();
      } catch {
        // The guardian is gone already.
      }
      await current.child.status;
    },
    async inherit() {
      isOver = true;
      if (!isThere) current = start();
      await current.writer.close().catch(() => {});
      current.child.unref();
    },
  };
}

/**
 * Runs in the guardian's process: waits for the end of the pipe, and acts unless it was dismissed.
 *
 * @param atFirst What to do with the VM until the pipe says otherwise.
 */
export async function guard(
  qmp: string,
  atFirst: OnSecondaryLoss,
  folder: string,
): Promise<void> {
  let words = "";
  for await (const text of Deno.stdin.readable.pipeThrough(new TextDecoderStream())) words += text;
  const said = words.split("\n").slice(0, -1);
  if (said.at(-1) === FAREWELL) return;
  const action = said.at(-1) as OnSecondaryLoss | undefined ?? atFirst;
  const stoppedByUs = await wasStandingStill(folder);
  let settings: string | undefined;
  let hasNote = true;
  try {
    settings = readSavedSettings(folder);
    hasNote = settings !== undefined;
  } catch (error) {
    log.error("QEMU's settings cannot be put back: {reason}", { reason: (error as Error).message });
  }
  // If no migration of ours was begun, a migration that is under way is an operator's, who may be
  // moving the VM. A VM that is the secondary's must stop all the same.
  const isOurs = hasNote || stoppedByUs || said.at(-1) === "stop";
  await Deno.remove(folder, { recursive: true }).catch(() => {});
  let begun = performance.now();
  for (let told = false;;) {
    try {
      if (isOurs && await mustWait(qmp)) {
        await delay(LATER_MS);
        begun = performance.now();
        continue;
      }
      await using client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
      let state = "not told what to do, by its own refusal";
      try {
        state = await (isOurs ? releaseVm(client, action, stoppedByUs) : runState(client));
      } catch (error) {
        if (!(error instanceof QemuError)) throw error;
        log.error("{reason}", { reason: error.message });
      }
      if (settings !== undefined) await putBackSettings(client, settings);
      log.warn("kemari protect has ended; the VM is {state}", { state });
      return;
    } catch (error) {
      if (isGone(error)) return;
      const silentMs = performance.now() - begun;
      if (silentMs > SILENT_MS && !told) {
        told = true;
        log.error("kemari protect has ended, and QEMU has not been told yet: {reason}", {
          reason: (error as Error).message,
        });
      }
      if (silentMs > GIVE_UP_MS) return;
      await delay(100);
    }
  }
}

/** Whether the end of COLO would harm the VM in its present state. */
async function mustWait(qmp: string): Promise<boolean> {
  await using client = await QmpClient.connect(qmp, { timeoutMs: 2000 });
  return await staysInColo(client) !== undefined;
}

/** Whether QEMU has ended too: then nothing is to be done. */
function isGone(error: unknown): boolean {
  const cause = (error as Error).cause;
  return cause instanceof Deno.errors.NotFound || cause instanceof Deno.errors.ConnectionRefused;
}
