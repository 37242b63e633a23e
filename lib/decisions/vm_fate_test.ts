import assert from "node:assert/strict";
import { farewell } from "./primary_end.ts";
import { endBehind, judgeFate, type VmEvidence, waitAfterCancel } from "./vm_fate.ts";

const answers = (runState: string, migration: string): VmEvidence => ({
  monitor: "answers",
  runState,
  migration,
});

/** What is known → what it is → what kind of end; `primary_end_test.ts` has what follows. */
const TABLE: readonly (readonly [string, VmEvidence, string, string])[] = [
  [
    "kill -9, a crash, a power cut",
    { monitor: "closed" },
    "dead",
    "vm-died",
  ],
  [
    "a QEMU that hangs",
    { monitor: "silent" },
    "dead",
    "vm-died",
  ],
  [
    "a QEMU that waits for the end of the command that it has closed the stream to",
    { monitor: "silent", waitsForUs: true },
    "alive",
    "vm-rests",
  ],
  [
    "the same, killed",
    { monitor: "closed", waitsForUs: true },
    "dead",
    "vm-died",
  ],
  ...[
    "guest-shutdown",
    "guest-reset",
    "guest-panic",
    "host-qmp-quit",
    "host-qmp-system-reset",
    "host-signal",
    "host-ui",
    "host-error",
    "subsystem-reset",
  ].flatMap((shutdown) =>
    ([
      { shutdown, monitor: "closed" },
      { shutdown, monitor: "silent" },
      { shutdown, ...answers("shutdown", "colo") },
      // QEMU gives its migration up on its way out.
      { shutdown, ...answers("running", "cancelling") },
      { shutdown, ...answers("suspended", "colo") },
    ] as const).map((evidence) =>
      [
        `SHUTDOWN ${shutdown}`,
        evidence,
        "ended",
        "vm-ended",
      ] as const
    )
  ),
  [
    "-no-shutdown, before we came",
    answers("shutdown", "none"),
    "ended",
    "vm-ended",
  ],
  ...["none", "setup", "active", "device", "colo", "completed", "cancelled"].map((migration) =>
    [
      `S3, ${migration}`,
      answers("suspended", migration),
      "asleep",
      "vm-rests",
    ] as const
  ),
  ...["colo", "finish-migrate", "postmigrate"].map((state) =>
    [
      `S3 in the moment of a stop, ${state}`,
      { ...answers(state, "colo"), isAsleep: true },
      "stranded",
      "vm-died",
    ] as const
  ),
  [
    "S3, woken meanwhile",
    { ...answers("colo", "colo"), isAsleep: false },
    "alive",
    "vm-rests",
  ],
  ...["running", "colo", "paused", "guest-panicked"].flatMap((state) => [
    [
      `migrate_cancel, ${state}`,
      answers(state, "cancelling"),
      "cancelled",
      "vm-rests",
    ] as const,
    [
      `migrate_cancel, over, ${state}`,
      answers(state, "cancelled"),
      "cancelled",
      "vm-rests",
    ] as const,
    [
      `x-colo-lost-heartbeat, ${state}`,
      answers(state, "completed"),
      "cancelled",
      "vm-rests",
    ] as const,
    [
      `QEMU fails, ${state}`,
      answers(state, "failed"),
      "failed",
      "fault",
    ] as const,
  ]),
  ...[
    "none",
    "setup",
    "active",
    "postcopy-active",
    "postcopy-paused",
    "postcopy-recover",
    "postcopy-recover-setup",
    "pre-switchover",
    "device",
    "wait-unplug",
    "colo",
  ]
    .map((
      migration,
    ) =>
      [
        `yank, or whatever cuts the stream: ${migration}`,
        answers("running", migration),
        "alive",
        "vm-rests",
      ] as const
    ),
];

for (const [what, evidence, kind, end] of TABLE) {
  Deno.test(`a VM's fate: ${what}, ${JSON.stringify(evidence)}: ${kind}, ${end}`, () => {
    const fate = judgeFate(evidence);
    assert.equal(fate.kind, kind);
    assert.equal(endBehind(fate), end);
  });
}

Deno.test("the secondary is told that a VM is here only by a QEMU that answers, and of an end only by its word", () => {
  for (const [what, evidence] of TABLE) {
    const end = endBehind(judgeFate(evidence));
    const tells = farewell({
      ...{ end, onSecondaryLoss: "continue", stoodStill: false, isInterrupted: false },
    });
    const shown = evidence.waitsForUs ? "silent" : "answers";
    if (tells === "goes-on") assert.equal(evidence.monitor, shown, what);
    if (tells === "vm-ended") {
      assert.ok(evidence.shutdown !== undefined || evidence.runState === "shutdown", what);
    }
  }
});

Deno.test("who ends a session once is protected again soon, who insists is left alone for longer", () => {
  const waits = [0];
  for (let i = 0; i < 8; i++) waits.push(waitAfterCancel(waits.at(-1)!, 500));
  assert.deepEqual(waits.slice(1), [2000, 4000, 8000, 16000, 32000, 64000, 120_000, 120_000]);
  assert.equal(waitAfterCancel(120_000, 60_000), 2000, "that was another day");
});
