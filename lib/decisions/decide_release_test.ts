import assert from "node:assert/strict";
import { type AtRelease, decideRelease, type Release } from "./decide_release.ts";
import type { Fate } from "./primary_end.ts";

const KNOWN: AtRelease = {
  fate: "goes-on",
  isPaused: false,
  wasStopped: false,
  isHeldByUs: false,
  hasBegun: true,
};

const TABLE: readonly (readonly [string, Partial<AtRelease>, Release])[] = [
  ["the secondary is lost", {}, "continue"],
  ["the same, and the VM is to stop", { fate: "stops" }, "stop"],
  ["the VM is the secondary's", { fate: "is-theirs" }, "stop"],
  ["the same, before a migration", { fate: "is-theirs", hasBegun: false }, "stop"],
  ["the VM was shut down", { fate: "has-ended", vm: "ended" }, "stop"],
  ["an operator has paused it", { isPaused: true }, "stop"],
  ["its disk is full, between two snapshots", { wasStopped: true }, "stop"],
  ["we have it read", { isHeldByUs: true, isPaused: true }, "continue"],
  ["an operator has ended COLO", { vm: "cancelled" }, "continue"],
  [
    "the same, with QEMU's own stop on its way (7.2)",
    { vm: "cancelled", isPaused: true },
    "continue",
  ],
  ["the same, of a VM that was stopped before", { vm: "cancelled", wasStopped: true }, "stop"],
  ["the guest sleeps", { vm: "asleep" }, "continue"],
  ["QEMU cannot let it sleep", { fate: "stops", vm: "stranded" }, "nothing"],
  [
    "the same, before a migration",
    { fate: "stops", vm: "stranded", hasBegun: false },
    "settings-only",
  ],
  ["an operator moves the VM", { hasBegun: false }, "settings-only"],
  ["the same, and the VM is to stop", { fate: "stops", hasBegun: false }, "settings-only"],
];

for (const [what, known, wanted] of TABLE) {
  Deno.test(`QEMU is told: ${what}: ${wanted}`, () => {
    assert.equal(decideRelease({ ...KNOWN, ...known }), wanted);
  });
}

Deno.test("of all cases, none has a VM run that is the secondary's, or that somebody has stopped", () => {
  const either = [false, true];
  for (const fate of ["goes-on", "stops", "is-theirs", "has-ended"] as readonly Fate[]) {
    for (const isPaused of either) {
      for (const wasStopped of either) {
        for (const hasBegun of either) {
          const known = { ...KNOWN, fate, isPaused, wasStopped, hasBegun };
          const runs = decideRelease(known) === "continue";
          assert.equal(runs, fate === "goes-on" && hasBegun && !isPaused && !wasStopped);
        }
      }
    }
  }
});
