import assert from "node:assert/strict";
import { enableColo, enableSnapshots, triggerCheckpoint, yankMigration } from "./migration.ts";
import { decodeMigrationStatus } from "./migration_status.ts";
import { probeCapabilities } from "./migration_support.ts";

function support(major: number, names: readonly string[]) {
  return probeCapabilities({
    version: { qemu: { major, minor: 1, micro: 0 } },
    capabilities: names.map((capability) => ({ capability, state: false })),
  });
}

const NAMES_11 = ["xbzrle", "events", "postcopy-ram", "x-colo", "return-path", "multifd"];

function states(command: { arguments?: Readonly<Record<string, unknown>> }) {
  const list = command.arguments?.capabilities as { capability: string; state: boolean }[];
  return Object.fromEntries(list.map(({ capability, state }) => [capability, state]));
}

Deno.test("enableColo sets what the QEMU knows, in one command, and nothing else", () => {
  const [capabilities, parameters] = enableColo(support(11, NAMES_11), {
    checkpointDelayMs: 50,
    returnPath: true,
  });
  assert.equal(capabilities.execute, "migrate-set-capabilities");
  assert.deepEqual(states(capabilities), {
    "events": true,
    "x-colo": true,
    "return-path": true,
    "multifd": false,
    "postcopy-ram": false,
  });
  assert.equal(parameters.execute, "migrate-set-parameters");
  assert.equal(parameters.arguments?.["x-checkpoint-delay"], 50);
});

Deno.test("enableColo leaves the return path off where it is told to", () => {
  const [capabilities] = enableColo(support(7, NAMES_11), {
    checkpointDelayMs: 50,
    returnPath: false,
  });
  assert.equal(states(capabilities)["return-path"], false);
  assert.equal(states(capabilities)["x-colo"], true);
});

Deno.test("enableSnapshots switches COLO and the return path off", () => {
  const [command] = enableSnapshots(support(10, NAMES_11));
  assert.equal(states(command)["x-colo"], false);
  assert.equal(states(command)["return-path"], false);
});

Deno.test("the single commands are QEMU's", () => {
  assert.deepEqual(triggerCheckpoint(20), {
    execute: "migrate-set-parameters",
    arguments: { "x-checkpoint-delay": 20 },
  });
  assert.deepEqual(yankMigration(), {
    execute: "yank",
    arguments: { instances: [{ type: "migration" }] },
    outOfBand: true,
  });
});

Deno.test("decodeMigrationStatus sorts QEMU's states", () => {
  const phases = {
    setup: "running",
    active: "running",
    device: "running",
    "pre-switchover": "running",
    cancelling: "running",
    colo: "colo",
    completed: "completed",
    failed: "failed",
    cancelled: "cancelled",
    none: "none",
  };
  for (const [status, phase] of Object.entries(phases)) {
    assert.equal(decodeMigrationStatus({ status }).phase, phase, status);
  }
  assert.deepEqual(decodeMigrationStatus({}), {
    phase: "none",
    status: "none",
    blockedReasons: [],
  });
  assert.deepEqual(decodeMigrationStatus(null).phase, "none");
  assert.deepEqual(
    decodeMigrationStatus({ status: "failed", "error-desc": "no", "blocked-reasons": ["a", 1] }),
    { phase: "failed", status: "failed", error: "no", blockedReasons: ["a"] },
  );
});
