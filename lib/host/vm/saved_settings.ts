import { getLogger } from "@logtape/logtape";
import { QemuError } from "../../errors.ts";
import {
  decodeSettings,
  encodeSettings,
  restoreSettings,
  settingsOf,
} from "../../qmp/migration_settings.ts";
import type { MigrationSupport } from "../../qmp/migration_support.ts";
import type { QmpClient } from "./qmp_client.ts";

const log = getLogger(["kemari", "protect"]);

/** In the folder of a protection while QEMU's settings are not as they were. */
const NOTE = "settings";

/**
 * Notes what a protection is about to change in QEMU's settings, before it does. A note that is there
 * already stays: what an earlier session has changed and nobody has put back is not how it was.
 *
 * @param folder The protection's temporary folder, which its guardian knows.
 */
export function saveSettings(folder: string, support: MigrationSupport): void {
  if (readSavedSettings(folder) !== undefined) return;
  Deno.writeTextFileSync(`${folder}/${NOTE}.new`, encodeSettings(settingsOf(support)));
  Deno.renameSync(`${folder}/${NOTE}.new`, `${folder}/${NOTE}`);
}

/** What is to be put back; undefined where nothing was changed, or all of it was put back. */
export function readSavedSettings(folder: string): string | undefined {
  try {
    return Deno.readTextFileSync(`${folder}/${NOTE}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/**
 * Puts QEMU's settings back. A setting that QEMU refuses is told of, and the others follow.
 *
 * @param note From {@link readSavedSettings}.
 * @throws {TransportError} QEMU is gone, or does not answer.
 */
export async function putBackSettings(qmp: QmpClient, note: string): Promise<void> {
  for (const command of restoreSettings(decodeSettings(note))) {
    try {
      await qmp.run(command);
    } catch (error) {
      if (!(error instanceof QemuError)) throw error;
      log.warn("QEMU's settings are not all as they were: {reason}", { reason: error.message });
    }
  }
}

/** As {@link putBackSettings}, for the process that has noted them. */
export async function restoreSaved(qmp: QmpClient, folder: string): Promise<void> {
  const note = readSavedSettings(folder);
  if (note === undefined) return;
  await putBackSettings(qmp, note);
  try {
    Deno.removeSync(`${folder}/${NOTE}`);
  } catch {
    // It went with the protection's folder.
  }
}
