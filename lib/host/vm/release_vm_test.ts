import assert from "node:assert/strict";
import type { QmpCommand } from "../../qmp/codec.ts";
import { QemuError } from "../../errors.ts";
import type { QmpClient } from "./qmp_client.ts";
import { FakeClock } from "../system/testing/fake_clock.ts";
import { releaseVm, staysInColo } from "./release_vm.ts";

/**
 * A VM whose migration and run state go on by themselves, a step each time that they are asked for;
 * the last ones stay.
 */
class ScriptedVm {
  readonly told: string[] = [];
  /** Whether a migration was under way when it was told to go on or to stop. */
  tooEarly = false;
  constructor(
    private readonly migration: string[],
    private readonly states: string[],
    /** What it refuses to hear. */
    private readonly deaf: readonly string[] = [],
  ) {}

  run({ execute }: QmpCommand): Promise<unknown> {
    if (execute === "query-migrate") return Promise.resolve({ status: next(this.migration) });
    if (execute === "query-status") return Promise.resolve({ status: next(this.states) });
    this.told.push(execute);
    if (this.deaf.includes(execute)) return Promise.reject(new QemuError(execute, "Generic", "no"));
    if (execute === "cont" || execute === "stop") {
      this.tooEarly ||= this.migration.length > 1 || this.states.length > 1;
    }
    if (execute === "cont") this.states.splice(0, this.states.length, "running");
    if (execute === "stop") this.states.splice(0, this.states.length, "paused");
    return Promise.resolve({});
  }

  /** @returns Its run state at the end. */
  async release(action: "continue" | "stop", stoppedByUs?: boolean): Promise<string> {
    const state = await releaseVm(
      this as unknown as QmpClient,
      action,
      stoppedByUs,
      new FakeClock(),
    );
    assert.equal(this.migration.length, 1, "the migration is waited for");
    assert.ok(!this.tooEarly, "what passes by itself is waited for");
    return state;
  }
}

function next(script: string[]): string {
  return script.length > 1 ? script.shift()! : script[0];
}

Deno.test("a VM in COLO runs by itself when it has heard that it is alone", async () => {
  const vm = new ScriptedVm(["colo", "colo", "failed"], ["running"]);
  assert.equal(await vm.release("continue"), "running");
  assert.deepEqual(vm.told, ["yank", "x-colo-lost-heartbeat"]);
});

Deno.test("a run state that COLO is about to leave is waited for, and not meddled with", async () => {
  for (const passing of ["colo", "finish-migrate"]) {
    const alone = new ScriptedVm(["colo", "completed"], [passing, passing, "running"]);
    assert.equal(await alone.release("continue"), "running", passing);
    assert.ok(!alone.told.includes("cont"), passing);
    // A `stop` in between would be undone.
    const halted = new ScriptedVm(["colo", "completed"], [passing, passing, "running"]);
    assert.equal(await halted.release("stop"), "paused", passing);
    assert.deepEqual(halted.told, ["yank", "x-colo-lost-heartbeat", "stop"], passing);
  }
});

Deno.test("a paused VM that COLO's end wakes is stopped again, where it is to stand still", async () => {
  const vm = new ScriptedVm(["colo", "failed"], ["paused", "paused", "running"]);
  assert.equal(await vm.release("stop"), "paused");
  assert.deepEqual(vm.told, ["yank", "x-colo-lost-heartbeat", "stop"]);
});

Deno.test("a migration under way is broken off, and its VM goes on or stands still", async () => {
  for (
    const [action, state, word] of [["continue", "running", "cont"], ["stop", "paused", "stop"]]
  ) {
    const vm = new ScriptedVm(["active", "active", "failed"], ["postmigrate"]);
    assert.equal(await vm.release(action as "continue" | "stop"), state);
    assert.deepEqual(vm.told, ["yank", word]);
  }
});

Deno.test("a migration that becomes COLO while it is broken off hears that it is alone", async () => {
  const vm = new ScriptedVm(["active", "colo", "failed"], ["running"]);
  assert.equal(await vm.release("continue"), "running");
  assert.deepEqual(vm.told, ["yank", "x-colo-lost-heartbeat"]);
});

Deno.test("what QEMU refuses of it does not keep it from the rest", async () => {
  const vm = new ScriptedVm(["colo", "failed"], ["postmigrate"], ["yank", "x-colo-lost-heartbeat"]);
  assert.equal(await vm.release("continue"), "running");
  assert.deepEqual(vm.told, ["yank", "x-colo-lost-heartbeat", "cont"]);
});

Deno.test("a VM that an operator has paused stays so; one that we have stopped goes on", async () => {
  const theirs = new ScriptedVm(["none"], ["paused"]);
  assert.equal(await theirs.release("continue"), "paused");
  const ours = new ScriptedVm(["none"], ["paused"]);
  assert.equal(await ours.release("continue", true), "running");
  assert.deepEqual([theirs.told, ours.told], [[], ["cont"]]);
  const kept = new ScriptedVm(["none"], ["paused"]);
  assert.equal(await kept.release("stop", true), "paused");
});

Deno.test("a VM whose cancelled COLO never ends is let run all the same", async () => {
  const vm = new ScriptedVm(["cancelling"], ["colo"]);
  assert.equal(await vm.release("continue"), "running");
  assert.deepEqual(vm.told, ["yank", "cont"]);
  // It runs already, or somebody has paused it.
  for (const state of ["running", "paused"]) {
    const other = new ScriptedVm(["cancelling"], [state]);
    assert.equal(await other.release("continue"), state);
    assert.deepEqual(other.told, ["yank"]);
  }
});

Deno.test("a VM that COLO's end would harm is found before it is told", async () => {
  const stays = (migration: string, state: string) =>
    staysInColo(new ScriptedVm([migration], [state]) as unknown as QmpClient);
  assert.equal(await stays("colo", "suspended"), "suspended");
  assert.equal(await stays("colo", "internal-error"), "internal-error");
  assert.equal(await stays("colo", "running"), undefined);
  assert.equal(await stays("completed", "suspended"), undefined);
  assert.equal(await stays("cancelling", "suspended"), undefined);
});
