import assert from "node:assert/strict";
import { atStart, mustStayInColo, RUN_STATES } from "./run_state.ts";

/** `query-status`'s words, all of 5.2 to 11.1 → before a session; whether COLO's end has to wait. */
const TABLE: readonly (readonly [string, string, boolean])[] = [
  ["running", "protect", false],
  ["paused", "wait", false],
  ["prelaunch", "wait", false],
  ["debug", "wait", false],
  ["suspended", "wait", true],
  ["io-error", "wait", false],
  ["watchdog", "wait", false],
  ["guest-panicked", "wait", false],
  ["save-vm", "wait", false],
  ["restore-vm", "wait", false],
  ["internal-error", "refuse", true],
  ["inmigrate", "arrives", false],
  ["finish-migrate", "refuse", false],
  ["colo", "refuse", false],
  ["preconfig", "refuse", false],
  ["shutdown", "over", false],
  ["postmigrate", "over", false],
  ["unknown", "protect", false],
  ["what no QEMU has said yet", "refuse", false],
];

for (const [state, kind, stays] of TABLE) {
  Deno.test(`a VM that is found ${state}: ${kind}${stays ? ", and left in COLO" : ""}`, () => {
    const found = atStart(state);
    assert.equal(found.kind, kind);
    assert.equal(mustStayInColo(state), stays);
    if (found.kind !== "protect") assert.match(found.reason, /^[A-Z].*\.$/);
  });
}

Deno.test("the table of run states has a row for each", () => {
  const known = TABLE.map(([state]) => state);
  assert.deepEqual(Object.keys(RUN_STATES).filter((state) => !known.includes(state)), []);
});

Deno.test("nobody is told to let a VM run that may run elsewhere, without a word of that", () => {
  const { reason } = RUN_STATES.postmigrate as { reason: string };
  assert.match(reason, /Only if it runs nowhere/);
});
