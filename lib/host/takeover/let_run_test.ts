import assert from "node:assert/strict";
import { QemuError, TransportError } from "../../errors.ts";
import type { QmpClient } from "../vm/qmp_client.ts";
import { letRun } from "./let_run.ts";
import type { StandbyProcess } from "./standby_process.ts";

/** Longer than any host takes to come back to what it was doing. */
const A_DAY_MS = 24 * 3600 * 1000;

/** A QEMU that takes a day for everything: who sets a limit below that has run into it. */
function slowQemu(answer: () => Promise<unknown>, process: Partial<StandbyProcess> = {}) {
  const asked: string[] = [];
  const within = (limitMs: number | undefined, what: string): Promise<unknown> => {
    asked.push(what);
    return (limitMs ?? 0) > A_DAY_MS
      ? answer()
      : Promise.reject(new TransportError("/qmp", "read", `no ${what} in ${limitMs} ms`));
  };
  const client = {
    waitEvent: (name: string, limitMs?: number) => within(limitMs, name),
    execute: (command: string, _args: undefined, { timeoutMs }: { timeoutMs?: number } = {}) =>
      within(timeoutMs, command),
  };
  const lives = { exitCode: new Promise<number>(() => {}), hasEnded: false, ...process };
  const runs = () => letRun(lives as StandbyProcess, client as unknown as QmpClient);
  return { asked, runs };
}

Deno.test("a QEMU that was told to run is waited for, however long it takes", async () => {
  const { asked, runs } = slowQemu(() => Promise.resolve({}));
  assert.equal(await runs(), undefined);
  assert.deepEqual(asked, ["RESUME", "cont"]);
});

Deno.test("one that refuses has not run; one that has ended may have", async () => {
  const refusal = new QemuError("cont", "GenericError", "Failed to get a lock");
  const refusing = slowQemu(() => Promise.reject(refusal));
  assert.equal(await refusing.runs(), refusal);
  const end = new QemuError("standby", "Exited", "it has ended");
  const dead = slowQemu(() => new Promise(() => {}), {
    exitCode: Promise.resolve(1),
    hasEnded: true,
    failure: () => Promise.resolve(end),
  } as Partial<StandbyProcess>);
  await assert.rejects(dead.runs(), end);
});
