import assert from "node:assert/strict";
import {
  afterFarewell,
  type AtPrimaryEnd,
  farewell,
  mustAsk,
  nextTry,
  type PrimaryEnd,
  retryDelayMs,
  type Tries,
} from "./primary_end.ts";

const KNOWN: AtPrimaryEnd = {
  end: "secondary-lost",
  onSecondaryLoss: "continue",
  stoodStill: false,
  isInterrupted: false,
};
const TRIES: Tries = { retry: true, wasLinked: true, isFirst: false, hasTaps: false };

/**
 * In words: what is said, and asked where that is unheard; what becomes of the VM where the last of it is
 * heard, unheard, theirs; and then?
 */
function plan(known: AtPrimaryEnd, tries: Tries = TRIES): string {
  const tells = farewell(known);
  const isOver = known.end === "silence";
  const asks = mustAsk(known, isOver ? "given-up" : "unheard");
  const answers = tells === "nothing"
    ? ["unheard"] as const
    : ["heard", "unheard", "taken-over"] as const;
  const fates = answers.map((answer) => afterFarewell(known, answer));
  return [
    [...(isOver && tells !== "nothing" ? [] : [tells]), ...(asks ? ["ask"] : [])].join("+"),
    [...new Set(fates)].join("/"),
    nextTry(known, fates[0], tries),
  ].join(", ");
}

const STOP = { onSecondaryLoss: "stop" } as const;

/** What happened, what is known of it, and the plan. */
const TABLE: readonly (readonly [string, Partial<AtPrimaryEnd>, string])[] = [
  ["the secondary's host dies", {}, "goes-on, goes-on/is-theirs, again"],
  ["the same, where the VM is to stop", STOP, "nothing, stops, never"],
  // Row 6.
  [
    "SIGSTOP to protect, or a frozen cgroup",
    { stoodStill: true },
    "goes-on+ask, goes-on/is-theirs, again",
  ],
  [
    "the same, and SIGTERM",
    { end: "interrupted", isInterrupted: true, stoodStill: true },
    "goes-on+ask, goes-on/is-theirs, never",
  ],
  [
    "the same, and migrate_cancel",
    { end: "vm-rests", stoodStill: true },
    "goes-on+ask, goes-on/is-theirs, again",
  ],
  [
    "the same, and a refusal",
    { end: "storage", stoodStill: true },
    "goes-on, goes-on/is-theirs, again-later",
  ],
  [
    "the same, and poweroff",
    { end: "vm-ended", stoodStill: true },
    "vm-ended, has-ended/stops/is-theirs, never",
  ],
  [
    "the same, read in the secondary's words",
    { end: "silence" },
    "ask, goes-on/stops/is-theirs, again",
  ],
  ["the same, where the VM is to stop", { end: "silence", ...STOP }, "nothing, stops, never"],
  ["the VM is taken over", { end: "taken-over" }, "nothing, is-theirs, never"],
  ["Ctrl-C", { end: "interrupted", isInterrupted: true }, "goes-on, goes-on/is-theirs, never"],
  [
    "Ctrl-C, where the VM is to stop on loss",
    { end: "interrupted", isInterrupted: true, ...STOP },
    "goes-on, goes-on/stops/is-theirs, never",
  ],
  // Row 1.
  [
    "poweroff, quit, SIGTERM to QEMU",
    { end: "vm-ended" },
    "vm-ended, has-ended/stops/is-theirs, never",
  ],
  [
    "the same, where the VM is to stop on loss",
    { end: "vm-ended", ...STOP },
    "vm-ended, has-ended/stops/is-theirs, never",
  ],
  ["kill -9 to QEMU", { end: "vm-died" }, "nothing, stops, never"],
  // Rows 2 and 3.
  ["S3, migrate_cancel", { end: "vm-rests" }, "goes-on, goes-on/is-theirs, again"],
  [
    "the same, where the VM is to stop on loss",
    { end: "vm-rests", ...STOP },
    "goes-on, goes-on/stops/is-theirs, again",
  ],
  // Row 12.
  ["the secondary is full", { end: "storage" }, "goes-on, goes-on/is-theirs, again-later"],
  // Rows 7 to 10.
  ["the secondary refuses", { end: "fault" }, "goes-on, goes-on/is-theirs, never"],
  [
    "the secondary refuses, and the VM is to stop",
    { end: "fault", ...STOP },
    "nothing, stops, never",
  ],
  ["the secondary is busy", { end: "busy" }, "goes-on, goes-on/is-theirs, again"],
];

for (const [what, known, wanted] of TABLE) {
  Deno.test(`primary: ${what}: ${wanted}`, () => {
    assert.equal(plan({ ...KNOWN, ...known }), wanted);
  });
}

Deno.test("a secondary that was never there is told of at once, unless the VM depends on us", () => {
  const first = { ...TRIES, wasLinked: false, isFirst: true };
  assert.equal(nextTry(KNOWN, "goes-on", first), "never");
  assert.equal(nextTry(KNOWN, "goes-on", { ...first, hasTaps: true }), "again-later");
  assert.equal(nextTry(KNOWN, "goes-on", { ...first, isFirst: false }), "again-later");
  assert.equal(nextTry({ ...KNOWN, end: "busy" }, "goes-on", first), "again-later");
  assert.equal(nextTry(KNOWN, "goes-on", { ...TRIES, retry: false }), "never");
});

Deno.test("of all cases, none lets a VM run that may be the secondary's by its own word or our silence", () => {
  const ends: readonly PrimaryEnd[] = [
    ...["interrupted", "secondary-lost", "silence", "taken-over", "busy", "storage"] as const,
    ...["vm-died", "vm-ended", "vm-rests", "fault"] as const,
  ];
  for (const end of ends) {
    for (const onSecondaryLoss of ["continue", "stop"] as const) {
      for (const stoodStill of [false, true]) {
        for (const isInterrupted of [false, true]) {
          const known = { end, onSecondaryLoss, stoodStill, isInterrupted };
          assert.equal(afterFarewell(known, "taken-over"), "is-theirs");
          if (end === "taken-over") assert.equal(afterFarewell(known, "heard"), "is-theirs");
          const tells = farewell(known);
          // It refused us, and starts nothing for that.
          const suspicious = end === "silence" || stoodStill && end !== "busy" && end !== "storage";
          const runs = afterFarewell(known, "unheard") === "goes-on";
          if (suspicious && runs) {
            assert.ok(mustAsk(known, "unheard"), "it must ask before anything gets out");
          }
          // Its word stands until it says otherwise: no refused connection takes it back.
          const where = `${end}, ${onSecondaryLoss}`;
          if (end === "silence") assert.ok(!runs, "it has said that it gave us up");
          const givenUp = afterFarewell(known, "given-up");
          if (end !== "taken-over") assert.equal(givenUp, "stops", where);
          // Nobody is asked who knows, or is to find a loss.
          for (const answer of ["heard", "taken-over"] as const) {
            assert.ok(!mustAsk(known, answer), where);
          }
          if (tells !== "goes-on") assert.ok(!mustAsk(known, "given-up"), where);
          // Where the secondary is to take over, it must find a loss.
          if (end === "vm-died") assert.equal(tells, "nothing");
          for (const fate of ["goes-on", "stops"] as const) {
            const next = nextTry(known, fate, TRIES);
            if (isInterrupted || fate === "stops") assert.equal(next, "never");
          }
        }
      }
    }
  }
});

Deno.test("a secondary that refuses again and again is asked ever less often", () => {
  const delays = [1, 2, 3, 7, 8, 1000].map((refusals) => retryDelayMs(refusals, false));
  assert.deepEqual(delays, [1000, 2000, 4000, 60_000, 60_000, 60_000]);
  assert.equal(retryDelayMs(1000, true), 1000, "one that is not there costs nothing");
});
