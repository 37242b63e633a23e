import { getLogger } from "@logtape/logtape";
import { QemuError, StateError } from "../errors.ts";
import {
  decodeMigrationStatus,
  enableColo,
  queryMigration,
  startMigration,
} from "../qmp/migration.ts";
import { libc } from "./libc.ts";
import type { ProtectContext } from "./protect.ts";

const log = getLogger(["kemari", "protect"]);

/** How often QEMU is asked whether its migration has failed. */
const POLL_MS = 250;
/** Two intervals and so much without a checkpoint are too long. */
const INTERVAL_SLACK_MS = 200;

/**
 * Protects by COLO: one endless migration over a Unix socket.
 *
 * @throws when either side is lost; it does not end otherwise.
 */
export async function protectByColo(context: ProtectContext): Promise<never> {
  const { reactor, settings, support, qmp, link, signal } = context;
  const commands = enableColo(support, { checkpointDelayMs: settings.syncIntervalMs });
  await reactor.during(qmp.runAll(commands), signal);
  const fd = await reactor.during(migrateToUs(context), signal);
  let stopWatching: (() => void) | undefined;
  link.onEvent = (event) => {
    if (event.kind === "colo") {
      log.info("protected: checkpoints follow");
      stopWatching ??= watchInterval(context);
    }
    if (event.kind === "paused") log.info(PAUSED);
  };
  link.attach({ input: fd, output: fd, name: "QEMU" });
  const stopPolling = pollMigration(context);
  try {
    await reactor.run(() => false, signal);
    throw new StateError("the protection ended by itself");
  } finally {
    stopPolling();
    stopWatching?.();
    link.detach();
    libc().close(fd);
  }
}

/** Starts a migration to our socket. @returns The connection that QEMU makes for it. */
export function migrateToUs(context: ProtectContext): Promise<number> {
  return context.still.start((givenUp) => startAndAccept(context, givenUp));
}

async function startAndAccept(context: ProtectContext, givenUp: AbortSignal): Promise<number> {
  const { reactor, listener, qmp } = context;
  let accepted: number | undefined;
  const watch = reactor.watch(listener.fd, {
    readable: () => {
      accepted ??= listener.accept();
      if (accepted !== undefined) watch.want(false, false);
    },
  });
  watch.want(true, false);
  reactor.wake();
  try {
    await qmp.run(startMigration(`unix:${listener.text.replace(/^unix:/, "")}`));
    const until = performance.now() + 10_000;
    while (accepted === undefined) {
      await failIfFailed(qmp);
      if (performance.now() > until) {
        throw new QemuError("migrate", "Timeout", "QEMU did not connect for its migration");
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
      givenUp.throwIfAborted();
    }
    return accepted;
  } catch (error) {
    // The next migration's connection must not be taken for this one's.
    for (accepted ??= listener.accept(); accepted !== undefined; accepted = listener.accept()) {
      libc().close(accepted);
    }
    throw error;
  } finally {
    watch.stop();
  }
}

/** Throws QEMU's own reason if its migration has failed. */
export async function failIfFailed(qmp: ProtectContext["qmp"]): Promise<string> {
  const status = decodeMigrationStatus(await qmp.run(queryMigration()));
  if (status.phase !== "failed") return status.phase;
  throw new QemuError("migrate", "GenericError", status.error ?? "the migration failed", {
    hint: status.blockedReasons.join("; ") || undefined,
  });
}

/** What is said of a VM that somebody has paused. */
export const PAUSED = "the VM is paused, and is synchronized when it runs again";

/**
 * Asks for the checkpoints that QEMU's timer misses: it goes by the host's clock, and when that is
 * set back, there are none for as long.
 */
function watchInterval({ reactor, settings, trigger, link }: ProtectContext): () => void {
  const limitMs = 2 * settings.syncIntervalMs + INTERVAL_SLACK_MS;
  return reactor.every(limitMs / 2, () => {
    if (link.primary.dialogue.inCheckpoint) return;
    if (performance.now() - trigger.begunAt > limitMs) trigger.request();
  });
}

/** Watches for a migration that fails without its channel showing it. */
function pollMigration({ reactor, qmp }: ProtectContext): () => void {
  let asking = false;
  let over = false;
  const cancel = reactor.every(POLL_MS, () => {
    if (asking) return;
    asking = true;
    failIfFailed(qmp).catch((error) => {
      // The answer to the last question may be that we have just closed the channel.
      if (!over) reactor.fail(error);
    }).finally(() => asking = false);
  });
  return () => {
    over = true;
    cancel();
  };
}
