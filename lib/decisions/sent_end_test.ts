import assert from "node:assert/strict";
import type { Answer } from "./primary_end.ts";
import { afterSentFarewell, type AtSentEnd, sentFarewell } from "./sent_end.ts";

/** A secondary that is lost in COLO, of a VM whose monitor we have. */
const KNOWN: AtSentEnd = {
  isLinked: true,
  isInDoubt: false,
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
    { said: "taken-over" },
    "taken-over",
    "nothing; QEMU stop first; hold, serve on",
  ],
  [
    "the same, in the first pass",
    { ...FIRST, said: "taken-over" },
    "taken-over",
    "nothing; QEMU stop first; hold, serve on",
  ],
  [
    "the same, without a monitor",
    { ...BLIND, said: "taken-over" },
    "taken-over",
    "nothing; QEMU nothing first; hold, serve on",
  ],
  [
    "the secondary has given us up",
    { said: "given-up" },
    "unheard",
    "nothing; QEMU stop; hold-until-resumed, serve on",
  ],
  [
    "the same, in the first pass",
    { ...FIRST, said: "given-up" },
    "unheard",
    "nothing; QEMU stop; hold-until-resumed, serve on",
  ],
  [
    "the same, without a monitor",
    { ...BLIND, said: "given-up" },
    "unheard",
    "nothing; QEMU nothing; hold, serve on",
  ],
  [
    "a handover that is not answered",
    { ...FIRST, isInDoubt: true },
    "unheard",
    "nothing; QEMU stop; hold-until-resumed, serve on",
  ],
  [
    "the same, without a monitor",
    { ...FIRST, ...BLIND, isInDoubt: true },
    "unheard",
    "nothing; QEMU nothing; pass, serve on",
  ],
  [
    "the same, interrupted: nobody is told that the VM goes on",
    { ...FIRST, isInDoubt: true, isInterrupted: true },
    "unheard",
    "nothing; QEMU stop; hold-until-resumed",
  ],
  [
    "the same, of a QEMU that looks as if it stood in COLO: its VM is not let run",
    { isInDoubt: true },
    "unheard",
    "nothing; QEMU stop; hold-until-resumed, serve on",
  ],
  [
    "a handover that crosses the secondary's takeover",
    { ...FIRST, isInDoubt: true, said: "taken-over" },
    "taken-over",
    "nothing; QEMU stop first; hold, serve on",
  ],
  [
    "a stream that we do not take, of a secondary that has given us up",
    { ...FIRST, isStreamFault: true },
    "given-up",
    "goes-on; QEMU stop; hold-until-resumed, serve on",
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
    "goes-on; QEMU stop; hold-until-resumed",
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
    "the same, of a secondary that has given us up",
    { vm: "cancelled" },
    "given-up",
    "goes-on; QEMU stop; hold-until-resumed, serve on",
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
  for (const [, row] of TABLE) {
    for (const isPaused of [false, true]) {
      for (const said of [undefined, "given-up", "taken-over"] as const) {
        for (const answer of ["heard", "unheard", "given-up", "taken-over"] as const) {
          const known = { ...KNOWN, ...row, isPaused, said };
          const end = afterSentFarewell(known, answer);
          const isTheirs = said === "taken-over" || answer === "taken-over";
          const mayBeTheirs = isTheirs || said === "given-up" || answer === "given-up";
          if (mayBeTheirs || known.isInDoubt || isPaused) assert.notEqual(end.qemu, "continue");
          // In doubt, what passes is what somebody's VM says who has decided that it runs here.
          const passes = !mayBeTheirs && !(known.isInDoubt && end.qemu === "stop");
          assert.equal(end.taps === "pass", passes);
          if (isTheirs) assert.equal(end.taps, "hold");
          // Only of a VM that was stopped does RESUME tell that somebody has decided.
          if (end.taps === "hold-until-resumed") assert.equal(end.qemu, "stop");
          assert.equal(end.keepsConnection, isTheirs);
        }
      }
    }
  }
});
