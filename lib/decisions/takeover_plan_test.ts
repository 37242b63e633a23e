import assert from "node:assert/strict";
import {
  afterFailedTakeover,
  type AtFailedTakeover,
  type FailedTakeoverStep,
  planTakeover,
  type TakeoverCause,
  type TakeoverFailure,
} from "./takeover_plan.ts";

const PLANS: readonly (readonly [TakeoverCause, boolean, string])[] = [
  ["handover", true, "nobody is fenced; runs if it ran"],
  ["handover", false, "nobody is fenced; runs if it ran"],
  ["loss", true, "fenced; runs"],
  ["loss", false, "nobody is fenced; runs"],
  ["failover", true, "fenced; runs"],
  ["failover", false, "nobody is fenced; runs"],
];

for (const [cause, hasFence, wanted] of PLANS) {
  Deno.test(`takeover: ${cause}, ${hasFence ? "with" : "without"} a fence: ${wanted}`, () => {
    const { fences, runsAlways } = planTakeover(cause, hasFence);
    assert.equal(
      `${fences ? "fenced" : "nobody is fenced"}; ${runsAlways ? "runs" : "runs if it ran"}`,
      wanted,
    );
  });
}

/** One that an operator can ask for again. */
const KNOWN: AtFailedTakeover = {
  failure: "fence",
  mayHaveRun: false,
  isCommand: true,
  mayBeAskedAgain: true,
  mayComeBack: true,
  isPrimaryOut: false,
  isInterrupted: false,
};
const UNASKED = { mayBeAskedAgain: false } as const;

const TABLE: readonly (readonly [string, Partial<AtFailedTakeover>, FailedTakeoverStep])[] = [
  ["the fence fails", {}, "wait"],
  ["the same, for stdout", { isCommand: false }, "wait"],
  ["the same, and nobody can ask again", { mayBeAskedAgain: false }, "end"],
  ["the same, and we are to end", { isInterrupted: true }, "end"],
  ["a disk refuses a committed write", { failure: "disk" }, "wait"],
  ["the same, behind the fence", { failure: "disk", isPrimaryOut: true }, "wait"],
  ["the same, and nobody can ask again", {
    ...UNASKED,
    failure: "disk",
    isPrimaryOut: true,
  }, "again"],
  ["the same, without a listener", {
    ...UNASKED,
    failure: "disk",
    isPrimaryOut: true,
    mayComeBack: false,
  }, "again"],
  ["a disk fails before the fence, and nobody can ask again", {
    ...UNASKED,
    failure: "disk",
  }, "wait"],
  ["the same, and no sender can come", {
    ...UNASKED,
    failure: "disk",
    mayComeBack: false,
  }, "end"],
  ["a disk fails, and we are to end", {
    failure: "disk",
    isPrimaryOut: true,
    isInterrupted: true,
  }, "end"],
  ["there is no room, and nobody can ask again", {
    ...UNASKED,
    failure: "room",
    isPrimaryOut: true,
  }, "again"],
  ["the file that stdout is has no room", { failure: "room", isCommand: false }, "wait"],
  ["the command ends with the state", { failure: "successor" }, "wait"],
  ["stdout's reader goes with a part", { failure: "successor", isCommand: false }, "end"],
  ["the VM ran and has ended", { failure: "ran" }, "spent"],
  ["the same, and we are to end", { failure: "ran", isInterrupted: true }, "spent"],
  ["we are to end", { failure: "other", isInterrupted: true }, "end"],
  [
    "we are to end, and QEMU was told to run the VM",
    { failure: "other", mayHaveRun: true, isInterrupted: true },
    "spent",
  ],
  ["a disk fails, and QEMU was told to run the VM", { failure: "disk", mayHaveRun: true }, "spent"],
  ["a bug", { failure: "other" }, "end"],
];

for (const [what, known, wanted] of TABLE) {
  Deno.test(`a failed takeover: ${what}: ${wanted}`, () => {
    assert.equal(afterFailedTakeover({ ...KNOWN, ...known }), wanted);
  });
}

Deno.test("of all cases, a VM that may have run is never followed by another try", () => {
  let tries = 0;
  for (const failure of ["fence", "disk", "room", "ran", "successor", "other"] as const) {
    for (let bits = 0; bits < 64; bits++) {
      const [isCommand, mayBeAskedAgain, isInterrupted, mayHaveRun, mayComeBack, isPrimaryOut] = [
        ...[1, 2, 4, 8, 16, 32],
      ].map((bit) => (bits & bit) > 0);
      const may = { mayHaveRun, mayBeAskedAgain, mayComeBack };
      const step = afterFailedTakeover({ failure, ...may, isCommand, isPrimaryOut, isInterrupted });
      assert.equal(step === "spent", mayHaveRun || failure === "ran");
      // By itself only of a VM that nobody else can have.
      if (step === "again") assert.ok(isPrimaryOut && !mayBeAskedAgain);
      const isStorage = failure === "disk" || failure === "room";
      if (isStorage && !mayHaveRun && !isInterrupted) {
        assert.equal(step === "end", !mayBeAskedAgain && !isPrimaryOut && !mayComeBack);
      }
      if (step !== "wait" && step !== "again") continue;
      tries++;
      assert.ok(!isInterrupted && !mayHaveRun);
      assert.ok(!(["ran", "other"] as readonly TakeoverFailure[]).includes(failure));
    }
  }
  assert.ok(tries > 20);
});
