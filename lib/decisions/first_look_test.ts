import assert from "node:assert/strict";
import { type AtFirstLook, atFirstLook } from "./first_look.ts";

const RUNS: AtFirstLook = {
  isArriving: false,
  isRefused: false,
  standsStill: false,
  hasTaps: false,
};

/** A refusal of QEMU's own comes with an arrival, too: there is nothing to migrate. */
const ARRIVES = { isArriving: true, isRefused: true };

const TABLE: readonly (readonly [string, Partial<AtFirstLook>, ReturnType<typeof atFirstLook>])[] =
  [
    ["a VM that runs", {}, "protect"],
    ["a VM that runs, with taps", { hasTaps: true }, "protect"],
    ["a VM that stands still", { standsStill: true }, "wait-for-vm"],
    ["a VM that cannot be protected", { isRefused: true }, "refuse"],
    ["a VM that cannot be protected, with taps", { isRefused: true, hasTaps: true }, "refuse"],
    ["a VM that cannot be protected and stands still", {
      isRefused: true,
      standsStill: true,
      hasTaps: true,
    }, "refuse"],
    ["a QEMU without a VM", ARRIVES, "refuse"],
    ["a QEMU whose VM is to arrive, with taps", { ...ARRIVES, hasTaps: true }, "wait-for-arrival"],
  ];

for (const [what, changes, verdict] of TABLE) {
  Deno.test(`at the first look, ${what}: ${verdict}`, () => {
    assert.equal(atFirstLook({ ...RUNS, ...changes }), verdict);
  });
}
