import { getLogger } from "@logtape/logtape";
import { QemuError } from "../../errors.ts";
import { giveDescriptor, startMigration, takeBackDescriptor } from "../../qmp/migration.ts";
import { decodeMigrationStatus, queryMigration } from "../../qmp/migration_status.ts";
import { openSocketPair } from "../system/descriptor_passing.ts";
import { libc } from "../system/libc.ts";
import type { QmpClient } from "./qmp_client.ts";
import type { Reactor } from "../system/reactor.ts";
import { type Listener, listenSocket } from "../system/socket.ts";
import { never } from "../system/never.ts";
import { delay } from "../system/delay.ts";

const log = getLogger(["kemari", "protect"]);

/** The name under which QEMU is given its end of the connection. */
const DESCRIPTOR = "kemari-migration";
const CONNECT_MS = 10_000;
const POLL_MS = 5;

/**
 * How QEMU's migration streams reach this process.
 *
 * QEMU is handed one end of a connection through its monitor, so that it does not matter which user
 * QEMU runs as, in which mount namespace, and what its sandbox forbids. A monitor over TCP or
 * behind a proxy takes no descriptors: then QEMU is given the path of a socket, which it must be
 * able to reach.
 */
export class MigrationChannel {
  readonly #reactor: Reactor;
  readonly #qmp: QmpClient;
  readonly #path: string;
  #listener: Listener | undefined;
  #takesDescriptors: boolean;

  /** @param folder Where the path is made, if one is needed. */
  constructor(reactor: Reactor, qmp: QmpClient, folder: string) {
    this.#reactor = reactor;
    this.#qmp = qmp;
    this.#path = `${folder}/migration`;
    this.#takesDescriptors = qmp.passesDescriptors;
  }

  /**
   * Starts a migration to this process.
   *
   * @param givenUp Aborted when nobody waits for the migration any more.
   * @returns Our end, the caller's to close.
   * @throws {QemuError} with QEMU's reason.
   */
  async open(givenUp: AbortSignal): Promise<number> {
    if (this.#takesDescriptors) {
      const fd = await this.#handOver();
      if (fd !== undefined) return fd;
      this.#takesDescriptors = false;
    }
    return await this.#listen(givenUp);
  }

  close(): void {
    this.#listener?.close();
  }

  /** @returns `undefined` where this monitor takes no descriptors. */
  async #handOver(): Promise<number | undefined> {
    const { ours, theirs } = openSocketPair("migration");
    try {
      try {
        await this.#qmp.run(giveDescriptor(DESCRIPTOR), { fd: theirs });
      } catch (error) {
        if (!(error instanceof QemuError)) throw error;
        log.info("this monitor takes no descriptor ({reason}): QEMU is told a path", {
          reason: error.message,
        });
        libc().close(ours);
        return undefined;
      }
      await this.#qmp.run(startMigration(`fd:${DESCRIPTOR}`));
      return ours;
    } catch (error) {
      libc().close(ours);
      // If QEMU has not begun, it still has the descriptor; otherwise, or if QEMU is gone, this
      // fails.
      await this.#qmp.run(takeBackDescriptor(DESCRIPTOR)).catch(() => {});
      throw error;
    } finally {
      libc().close(theirs);
    }
  }

  async #listen(givenUp: AbortSignal): Promise<number> {
    const address = { kind: "unix", path: this.#path, text: this.#path } as const;
    const listener = this.#listener ??= await listenSocket(address, this.#reactor, never);
    let accepted: number | undefined;
    const watch = this.#reactor.watch(listener.fd, {
      readable: () => {
        accepted ??= listener.accept();
        if (accepted !== undefined) watch.want(false, false);
      },
    });
    watch.want(true, false);
    this.#reactor.wake();
    try {
      await this.#qmp.run(startMigration(`unix:${this.#path}`));
      const until = performance.now() + CONNECT_MS;
      while (accepted === undefined) {
        await failIfFailed(this.#qmp);
        if (performance.now() > until) {
          throw new QemuError("migrate", "Timeout", "QEMU did not connect for its migration");
        }
        await delay(POLL_MS);
        givenUp.throwIfAborted();
      }
      return accepted;
    } catch (error) {
      // The next migration's connection must not be taken for this one's.
      for (accepted ??= listener.accept(); accepted !== undefined; accepted = listener.accept()) {
        libc().close(accepted);
      }
      throw this.#explained(error);
    } finally {
      watch.stop();
    }
  }

  #explained(error: unknown): unknown {
    if (!(error instanceof QemuError) || error.hint !== undefined) return error;
    const { command, errorClass, reason } = error;
    return new QemuError(command, errorClass, reason, {
      hint: `QEMU, as the user it runs as and from where it runs, must be able to reach ` +
        `${this.#path}; give --qmp the path of its monitor on a Unix socket, through which ` +
        `kemari ` +
        "can hand it the connection instead",
      cause: error,
    });
  }
}

/** Throws QEMU's own reason if its migration has failed. @returns How it goes. */
export async function failIfFailed(qmp: QmpClient): Promise<string> {
  const status = decodeMigrationStatus(await qmp.run(queryMigration()));
  if (status.phase !== "failed") return status.phase;
  throw new QemuError("migrate", "GenericError", status.error ?? "the migration failed", {
    hint: status.blockedReasons.join("; ") || undefined,
  });
}
