import assert from "node:assert/strict";
import type { Answer } from "./primary_end.ts";
import { afterSentFarewell, type AtSentEnd, sentFarewell } from "./sent_end.ts";

/** A secondary that is lost in COLO, of a VM whose monitor we have. */
const KNOWN: AtSentEnd = {
  isLinked: true,
  isTheirs: false,
  isStreamFault: false,
  wasInColo: true,
  mayBeColo: true,
  hasMonitor: true,
  isPaused: false,
  isInterrupted: false,
};

/** In words: what the secondary is told; then QEMU; what the taps do, and whether the end is a good one. */
function plan(known: AtSentEnd, answer: Answer): string {
  const { isGood, qemu, keepsConnection, taps, putsBack, servesOn } = afterSentFarewell(
    known,
    answer,
  );
  return [
    sentFarewell(known),
    `QEMU ${qemu}${keepsConnection ? " first" : ""}`,
    `${taps}${servesOn ? ", serve on" : ""}`,
    ...(putsBack ? ["put back"] : []),
    ...(isGood ? ["good"] : []),
  ].join("; ");
}

const FIRST = { wasInColo: false, mayBeColo: false } as const;
const BLIND = { hasMonitor: false } as const;

const TABLE: readonly (readonly [string, Partial<AtSentEnd>, Answer, string])[] = [
  ["the secondary is lost", {}, "unheard", "nothing; QEMU continue; pass, serve on"],
  ["the same, of a paused VM", { isPaused: true }, "unheard", "nothing; QEMU stop; pass, serve on"],
  ["the same, in the first pass", FIRST, "unheard", "nothing; QEMU nothing; pass, serve on"],
  ["the same, without a monitor", BLIND, "unheard", "nothing; QEMU nothing; pass, serve on"],
  ["it was never there", { isLinked: false }, "unheard", "nothing; QEMU nothing; pass, serve on"],
  [
    "the VM is the secondary's",
    { isTheirs: true },
    "taken-over",
    "nothing; QEMU stop first; hold, serve on",
  ],
  [
    "the same, in the first pass",
    { ...FIRST, isTheirs: true },
    "taken-over",
    "nothing; QEMU stop first; hold, serve on",
  ],
  [
    "the same, without a monitor",
    { ...BLIND, isTheirs: true },
    "taken-over",
    "nothing; QEMU nothing first; hold, serve on",
  ],
  ["an interruption", { isInterrupted: true }, "heard", "goes-on; QEMU continue; pass"],
  [
    "the same, of a paused VM",
    { isInterrupted: true, isPaused: true },
    "heard",
    "goes-on; QEMU stop; pass",
  ],
  [
    "the same, which a takeover crosses",
    { isInterrupted: true },
    "taken-over",
    "goes-on; QEMU stop first; hold",
  ],
  [
    "the same, of a secondary that has given us up",
    { isInterrupted: true },
    "given-up",
    "goes-on; QEMU stop first; hold",
  ],
  [
    "an interruption without a monitor",
    { ...BLIND, isInterrupted: true },
    "unheard",
    "nothing; QEMU nothing; pass",
  ],
  [
    "an interruption in the first pass",
    { ...FIRST, isInterrupted: true },
    "unheard",
    "nothing; QEMU nothing; pass",
  ],
  [
    "a stream that we do not take",
    { ...FIRST, isStreamFault: true },
    "heard",
    "goes-on; QEMU nothing; pass, serve on",
  ],
  [
    "the same, which a takeover crosses",
    { ...FIRST, isStreamFault: true },
    "taken-over",
    "goes-on; QEMU stop first; hold, serve on",
  ],
  [
    "a checkpoint that we do not take",
    { isStreamFault: true },
    "unheard",
    "nothing; QEMU continue; pass, serve on",
  ],
  ["the VM was shut down", { vm: "ended" }, "heard", "vm-ended; QEMU nothing; pass; good"],
  ["the same, unheard", { vm: "ended" }, "unheard", "vm-ended; QEMU continue; pass, serve on"],
  ["QEMU has died", { vm: "dead" }, "unheard", "nothing; QEMU continue; pass, serve on"],
  [
    "QEMU cannot let its guest sleep",
    { vm: "stranded" },
    "unheard",
    "nothing; QEMU nothing; pass, serve on",
  ],
  [
    "QEMU's COLO was cancelled, maybe in a checkpoint",
    { vm: "cancelled" },
    "heard",
    "goes-on; QEMU continue; pass, serve on; put back",
  ],
  [
    "the same, of a paused VM",
    { vm: "cancelled", isPaused: true },
    "heard",
    "goes-on; QEMU nothing; pass, serve on; put back",
  ],
  ...(["asleep", "failed", "alive"] as const).map((vm) =>
    [
      `QEMU has ended it, ${vm}`,
      { vm },
      "heard",
      "goes-on; QEMU nothing; pass, serve on; put back",
    ] as const
  ),
];

for (const [what, known, answer, wanted] of TABLE) {
  Deno.test(`send ends: ${what}: ${wanted}`, () => {
    assert.equal(plan({ ...KNOWN, ...known }, answer), wanted);
  });
}

Deno.test("of all cases, none has a VM run that is the secondary's or paused, or lets its output go", () => {
  const either = [false, true];
  for (const [, row] of TABLE) {
    for (const isPaused of either) {
      for (const isTheirs of either) {
        for (const answer of ["heard", "unheard", "given-up", "taken-over"] as const) {
          const known = { ...KNOWN, ...row, isPaused, isTheirs };
          const end = afterSentFarewell(known, answer);
          const mayBeTheirs = isTheirs || answer === "taken-over" || answer === "given-up";
          if (mayBeTheirs || isPaused) assert.notEqual(end.qemu, "continue");
          assert.equal(end.taps, mayBeTheirs ? "hold" : "pass");
          assert.equal(end.keepsConnection, mayBeTheirs);
        }
      }
    }
  }
});
