import assert from "node:assert/strict";
import {
  CLOSED_MS,
  judgeSuccessor,
  LOAD_MS,
  type SuccessorFate,
  type SuccessorSight,
} from "./successor.ts";

/** A QEMU that has just been given the last byte. */
const READING: SuccessorSight = {
  isQemu: true,
  isAlive: true,
  exitCode: undefined,
  closedMs: undefined,
  sinceMs: 0,
};

const TABLE: readonly (readonly [string, Partial<SuccessorSight>, SuccessorFate])[] = [
  ["a QEMU that reads", {}, "wait"],
  ["the same for long", { sinceMs: LOAD_MS - 1 }, "wait"],
  ["the same for too long to say more", { sinceMs: LOAD_MS }, "loaded"],
  ["it has let go: to run, or to exit", { closedMs: 0, sinceMs: 50 }, "wait"],
  ["it has let go, and lives", { closedMs: CLOSED_MS, sinceMs: 400 }, "loaded"],
  ["it has let go, and is gone", { closedMs: 5, isAlive: false, sinceMs: 60 }, "failed"],
  ["it is gone behind a pipe", { isAlive: false, sinceMs: 60 }, "failed"],
  ["--exec: it exits 1", { isAlive: false, exitCode: 1, sinceMs: 60 }, "failed"],
  ["--exec: it exits 0: the guest has powered off", { isAlive: false, exitCode: 0 }, "loaded"],
  ["cat behind a pipe", { isQemu: false }, "wait"],
  ["the same, a while later", { isQemu: false, sinceMs: CLOSED_MS }, "loaded"],
  ["the same, at its end", { isQemu: false, isAlive: false }, "loaded"],
  ["--exec: a script that fails", { isQemu: false, isAlive: false, exitCode: 5 }, "failed"],
  ["--exec: a script that is done", { isQemu: false, isAlive: false, exitCode: 0 }, "loaded"],
];

for (const [what, seen, wanted] of TABLE) {
  Deno.test(`who was given the VM: ${what}: ${wanted}`, () => {
    assert.equal(judgeSuccessor({ ...READING, ...seen }), wanted);
  });
}
