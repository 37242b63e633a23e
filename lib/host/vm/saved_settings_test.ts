import assert from "node:assert/strict";
import { QemuError } from "../../errors.ts";
import type { QmpCommand } from "../../qmp/codec.ts";
import { probeCapabilities } from "../../qmp/migration_support.ts";
import type { QmpClient } from "./qmp_client.ts";
import { readSavedSettings, restoreSaved, saveSettings } from "./saved_settings.ts";

function support(delayMs: number) {
  return probeCapabilities({
    version: { qemu: { major: 11, minor: 1, micro: 0 } },
    parameters: { "x-checkpoint-delay": delayMs },
    suppressVmdesc: false,
  });
}

/** A QEMU that notes what it is told, and refuses one command. */
function qemu(refused?: string) {
  const told: QmpCommand[] = [];
  const run = (command: QmpCommand) => {
    told.push(command);
    return command.execute === refused
      ? Promise.reject(new QemuError(refused, "GenericError", "no"))
      : Promise.resolve({});
  };
  return { told, client: { run } as unknown as QmpClient };
}

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-settings-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the first note of QEMU's settings stays until they are put back", () =>
  inFolder(async (folder) => {
    assert.equal(readSavedSettings(folder), undefined);
    saveSettings(folder, support(4321));
    saveSettings(folder, support(20));
    const { told, client } = qemu();
    await restoreSaved(client, folder);
    assert.deepEqual(told.map(({ execute }) => execute), ["migrate-set-parameters", "qom-set"]);
    assert.deepEqual(told[0].arguments, { "x-checkpoint-delay": 4321 });
    assert.equal(readSavedSettings(folder), undefined);
    await restoreSaved(client, folder);
    assert.equal(told.length, 2);
  }));

Deno.test("a setting that QEMU refuses does not keep the others from being put back", () =>
  inFolder(async (folder) => {
    saveSettings(folder, support(4321));
    const { told, client } = qemu("migrate-set-parameters");
    await restoreSaved(client, folder);
    assert.equal(told.length, 2);
    assert.equal(readSavedSettings(folder), undefined);
  }));
