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

/** The file in a protection's folder that exists while QEMU's settings are changed. */
const NOTE = "settings";

/**
 * Notes QEMU's settings before a protection changes them. A note that is there already stays: it
 * has the original values, while QEMU still has what an earlier session has set.
 *
 * @param folder The protection's temporary folder, which the guardian knows too.
 */
export function saveSettings(folder: string, support: MigrationSupport): void {
  if (readSavedSettings(folder) !== undefined) return;
  Deno.writeTextFileSync(`${folder}/${NOTE}.new`, encodeSettings(settingsOf(support)));
  Deno.renameSync(`${folder}/${NOTE}.new`, `${folder}/${NOTE}`);
}

/** The settings to be restored; undefined if nothing was changed, or everything was restored. */
export function readSavedSettings(folder: string): string | undefined {
  try {
    return Deno.readTextFileSync(`${folder}/${NOTE}`);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/**
 * Restores QEMU's settings. A setting that QEMU refuses is logged, and the others follow.
 *
 * @param note From {@link readSavedSettings}.
 * @throws {TransportError} if QEMU is gone, or does not answer.
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

/** As {@link putBackSettings}, for the process that has noted the settings. */
export async function restoreSaved(qmp: QmpClient, folder: string): Promise<void> {
  const note = readSavedSettings(folder);
  if (note === undefined) return;
  await putBackSettings(qmp, note);
  try {
    Deno.removeSync(`${folder}/${NOTE}`);
  } catch {
    // The file was removed with the protection's folder.
  }
}
