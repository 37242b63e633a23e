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
  link.onEvent = (event) => {
    if (event.kind === "colo") log.info("protected: checkpoints follow");
  };
  link.attach({ input: fd, output: fd, name: "QEMU" });
  const stopPolling = pollMigration(context);
  try {
    await reactor.run(() => false, signal);
    throw new StateError("the protection ended by itself");
  } finally {
    stopPolling();
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
