import assert from "node:assert/strict";
import { QemuError } from "../../errors.ts";
import { until } from "../../lab/program/until.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { SupervisedLine } from "../vm/supervised_line.ts";
import { FakeMonitor } from "../vm/testing/fake_monitor.ts";
import { findProtectableVm } from "./protectable_vm.ts";
import { ProtectBoard } from "./protect_board.ts";
import type { ProtectParts } from "./protect_context.ts";

/** A QEMU in a run state, and what `protect` finds there. */
async function scene(runState: string, hasTaps: boolean) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-found-" });
  const monitor = FakeMonitor.open(`${folder}/qmp`);
  monitor.runState = runState;
  const reactor = new Reactor();
  const qmp = await reactor.during(QmpClient.connect(monitor.path, { reactor }), never);
  const line = new SupervisedLine(qmp, reactor);
  const board = new ProtectBoard("secondary");
  const heldPaths = { nets: [], connected: 0, disks: [] };
  const found = findProtectableVm(
    {
      ...{ line, reactor, board, signal: never },
      taps: { isEmpty: !hasTaps, heldPaths },
      settings: { mode: "auto" },
    } as unknown as ProtectParts,
  );
  found.catch(() => {});
  return {
    ...{ monitor, board, found },
    async [Symbol.asyncDispose]() {
      line.ignoreEnd();
      await qmp.close();
      await monitor[Symbol.asyncDispose]();
      reactor.close();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

Deno.test("a VM whose taps are here, and which is still to arrive in its QEMU, is waited for", async () => {
  await using s = await scene("inmigrate", true);
  await until(() => s.board.status().state === "waiting for the VM to run", "the wait for it");
  await s.monitor.resume();
  const { mode, support } = await s.found;
  assert.deepEqual([mode, support.runState], ["colo", "running"]);
});

Deno.test("a VM that arrives and is not to run yet is waited for as any other", async () => {
  await using s = await scene("inmigrate", true);
  await until(() => s.board.status().state === "waiting for the VM to run", "the wait for it");
  s.monitor.runState = "paused";
  const questions = s.monitor.heard.length;
  await until(() => s.monitor.heard.length > questions + 10, "another look");
  await s.monitor.resume();
  assert.equal((await s.found).support.runState, "running");
});

Deno.test("a QEMU without a VM and without taps of ours is refused", async () => {
  await using s = await scene("inmigrate", false);
  await assert.rejects(s.found, (error) => {
    return error instanceof QemuError && /waits for an incoming migration/.test(error.message);
  });
});

Deno.test("what cannot be protected is refused, also with taps", async () => {
  await using s = await scene("internal-error", true);
  await assert.rejects(s.found, /must be reset/);
});
