import assert from "node:assert/strict";
import { judgeFate, reactTo, type VmEvidence, waitAfterCancel } from "./vm_fate.ts";

const answers = (runState: string, migration: string): VmEvidence => ({
  monitor: "answers",
  runState,
  migration,
});

/** What is known → what it is → the secondary is told → held output → QEMU is told → what is next. */
const TABLE: readonly (readonly [string, VmEvidence, string, string])[] = [
  [
    "kill -9, a crash, a power cut",
    { monitor: "closed" },
    "dead",
    "nothing, dropped, never, ends with the error",
  ],
  [
    "a QEMU that hangs",
    { monitor: "silent" },
    "dead",
    "nothing, dropped, never, ends with the error",
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
        "vm-ended, released if heard, never, ends well",
      ] as const
    )
  ),
  [
    "-no-shutdown, before we came",
    answers("shutdown", "none"),
    "ended",
    "vm-ended, released if heard, never, ends well",
  ],
  ...["none", "setup", "active", "device", "colo", "completed", "cancelled"].map((migration) =>
    [
      `S3, ${migration}`,
      answers("suspended", migration),
      "asleep",
      "goes-on, released, when awake, again when awake",
    ] as const
  ),
  ...["colo", "finish-migrate", "postmigrate"].map((state) =>
    [
      `S3 in the moment of a stop, ${state}`,
      { ...answers(state, "colo"), isAsleep: true },
      "stranded",
      "nothing, dropped, never, ends with the error",
    ] as const
  ),
  [
    "S3, woken meanwhile",
    { ...answers("colo", "colo"), isAsleep: false },
    "alive",
    "goes-on, released, now, again",
  ],
  ...["running", "colo", "paused", "guest-panicked"].flatMap((state) => [
    [
      `migrate_cancel, ${state}`,
      answers(state, "cancelling"),
      "cancelled",
      "goes-on, released, now, again",
    ] as const,
    [
      `migrate_cancel, over, ${state}`,
      answers(state, "cancelled"),
      "cancelled",
      "goes-on, released, now, again",
    ] as const,
    [
      `x-colo-lost-heartbeat, ${state}`,
      answers(state, "completed"),
      "cancelled",
      "goes-on, released, now, again",
    ] as const,
    [
      `QEMU fails, ${state}`,
      answers(state, "failed"),
      "failed",
      "goes-on, released, now, ends with the error",
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
        "goes-on, released, now, again",
      ] as const
    ),
];

for (const [what, evidence, kind, reaction] of TABLE) {
  Deno.test(`a VM's fate: ${what}, ${JSON.stringify(evidence)} → ${kind}`, () => {
    const fate = judgeFate(evidence);
    assert.equal(fate.kind, kind);
    const { tell, output, release, next } = reactTo(fate);
    assert.equal([tell, output, release, next].join(", "), reaction);
  });
}

Deno.test("the secondary is told that a VM goes on only by a QEMU that answers, and never of a dead one", () => {
  for (const [what, evidence] of TABLE) {
    const { tell, output } = reactTo(judgeFate(evidence));
    if (tell === "goes-on") assert.equal(evidence.monitor, "answers", what);
    if (tell === "vm-ended") {
      assert.ok(evidence.shutdown !== undefined || evidence.runState === "shutdown", what);
    }
    if (output === "released") assert.equal(tell, "goes-on", what);
    if (tell === "nothing") assert.equal(output, "dropped", what);
  }
});

Deno.test("who ends a session once is protected again soon, who insists is left alone for longer", () => {
  const waits = [0];
  for (let i = 0; i < 8; i++) waits.push(waitAfterCancel(waits.at(-1)!, 500));
  assert.deepEqual(waits.slice(1), [2000, 4000, 8000, 16000, 32000, 64000, 120_000, 120_000]);
  assert.equal(waitAfterCancel(120_000, 60_000), 2000, "that was another day");
});
