import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { enableColo, enableSnapshots } from "./migration.ts";
import {
  decodeSettings,
  encodeSettings,
  restoreSettings,
  setSuppressVmdesc,
  settingsOf,
} from "./migration_settings.ts";
import { probeCapabilities } from "./migration_support.ts";

const SUPPORT = probeCapabilities({
  version: { qemu: { major: 11, minor: 1, micro: 0 } },
  capabilities: Object.entries({
    "auto-converge": true,
    "events": false,
    "multifd": true,
    "return-path": true,
    "x-colo": false,
  }).map(([capability, state]) => ({ capability, state })),
  parameters: { "max-bandwidth": 134217728, "x-checkpoint-delay": 20000, "downtime-limit": 300 },
  suppressVmdesc: false,
});

Deno.test("what a protection changes is put back as it was, and nothing else", () => {
  const settings = settingsOf(SUPPORT);
  assert.deepEqual(restoreSettings(settings), [
    {
      execute: "migrate-set-capabilities",
      arguments: {
        capabilities: [
          { capability: "events", state: false },
          { capability: "return-path", state: true },
          { capability: "x-colo", state: false },
          { capability: "multifd", state: true },
        ],
      },
    },
    {
      execute: "migrate-set-parameters",
      arguments: { "max-bandwidth": 134217728, "x-checkpoint-delay": 20000 },
    },
    setSuppressVmdesc(false),
  ]);
});

Deno.test("every setting that either mode changes is noted first", () => {
  const { capabilities, parameters } = settingsOf(SUPPORT);
  const modes = [
    ...enableColo(SUPPORT, { checkpointDelayMs: 100, returnPath: true }),
    ...enableSnapshots(SUPPORT),
  ];
  for (const { execute, arguments: given } of modes) {
    if (execute === "migrate-set-parameters") {
      for (const name of Object.keys(given!)) assert.ok(name in parameters, name);
      continue;
    }
    for (const { capability } of given!.capabilities as { capability: string }[]) {
      assert.ok(capability in capabilities, capability);
    }
  }
});

Deno.test("a QEMU without the settings is asked for none of them", () => {
  const old = probeCapabilities({ version: { qemu: { major: 5, minor: 2, micro: 0 } } });
  assert.deepEqual(restoreSettings(settingsOf(old)), []);
});

Deno.test("the note of the settings is read back, and a damaged one is refused", () => {
  const settings = settingsOf(SUPPORT);
  assert.deepEqual(decodeSettings(encodeSettings(settings)), settings);
  const none = { capabilities: {}, parameters: {} };
  assert.deepEqual(decodeSettings(encodeSettings(none)), none);
  const damaged = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"capabilities":[],"parameters":{}}',
    '{"capabilities":{"x-colo":1},"parameters":{}}',
    '{"capabilities":{},"parameters":{"max-bandwidth":"1"}}',
    '{"capabilities":{},"parameters":{},"suppressVmdesc":"on"}',
  ];
  for (const text of damaged) {
    assert.throws(() => decodeSettings(text), WireError, text);
  }
});
