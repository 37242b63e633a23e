import assert from "node:assert/strict";
import {
  afterSecondarySession,
  type AtSecondaryEnd,
  judgeSecondaryEnd,
  type SecondaryStep,
  type SeenSecondaryEnd,
} from "./secondary_end.ts";

/** A secondary that is to take over, and may: what differs from it is what a row is about. */
const READY: AtSecondaryEnd = {
  end: "lost",
  onLoss: "activate",
  committed: 7,
  isCurrent: true,
  isWhole: true,
  mayComeBack: true,
};

const short = (step: SecondaryStep) =>
  `${step.do}: ${step.why}${"isLoud" in step && step.isLoud ? "!" : ""}`;

/** What happens, what is known of it, and what is to be done. */
const TABLE: readonly (readonly [string, Partial<AtSecondaryEnd>, string])[] = [
  ["the primary's host dies", {}, "activate: lost"],
  ["the same, where nobody can reach us again", { mayComeBack: false }, "activate: lost"],
  ["the same, to wait on loss", { onLoss: "wait" }, "wait: lost"],
  ["the same, to wait where nobody can come", { onLoss: "wait", mayComeBack: false }, "end: lost"],
  ["the same, to exit on loss", { onLoss: "exit" }, "end: lost"],
  ["it dies before its first commit", { committed: 0 }, "wait: nothing-committed"],
  [
    "it dies before its first commit, on a pipe",
    { committed: 0, mayComeBack: false },
    "end: nothing-committed",
  ],
  // Row 1: an orderly end of the VM.
  ["poweroff, quit or SIGTERM to QEMU", { end: "vm-ended" }, "wait: vm-ended"],
  ["the same, on a pipe", { end: "vm-ended", mayComeBack: false }, "end: vm-ended"],
  ["the same, to exit on loss", { end: "vm-ended", onLoss: "exit" }, "end: vm-ended"],
  ["the same, before the first commit", { end: "vm-ended", committed: 0 }, "wait: vm-ended"],
  // Rows 2 and 3: the VM sleeps, or the operator ended its migration; Ctrl-C to protect.
  ["S3, migrate_cancel, Ctrl-C", { end: "goes-on" }, "wait: goes-on"],
  ["the same, on a pipe", { end: "goes-on", mayComeBack: false }, "end: goes-on"],
  // Rows 7 to 10: what it is or sends does not belong here.
  ["another VM, a damaged stream", { end: "refused" }, "wait: refused!"],
  ["the same, to wait on loss", { end: "refused", onLoss: "wait" }, "wait: refused"],
  ["the same, on a pipe", { end: "refused", mayComeBack: false }, "end: refused!"],
  // Rows 11 and 12: our room is full, our disk fails.
  ["the replica's storage fails", { end: "storage" }, "wait: storage!"],
  // Row 6: it was silent, came back, was refused, and asks again: a HELLO without a commit.
  ["a returned sender goes before its commit", { isCurrent: false }, "wait: outrun!"],
  ["the same, on a pipe", { isCurrent: false, mayComeBack: false }, "end: outrun!"],
  ["a disk's copy has not all come", { isWhole: false }, "wait: incomplete!"],
  ["the same, on a pipe", { isWhole: false, mayComeBack: false }, "end: incomplete!"],
  ["a port scanner", { end: "no-sender" }, "nothing: no-sender"],
  ["a command that never speaks", { end: "no-sender", mayComeBack: false }, "end: lost"],
  ["kemari failover, obeyed", { end: "yielded", onLoss: "wait" }, "activate: asked"],
];

for (const [what, known, wanted] of TABLE) {
  Deno.test(`secondary: ${what}: ${wanted}`, () => {
    assert.equal(short(afterSecondarySession({ ...READY, ...known })), wanted);
  });
}

Deno.test("of all cases, only two ways lead to a VM that runs here", () => {
  const ends = ["lost", "goes-on", "vm-ended", "refused", "storage", "no-sender"] as const;
  let activated = 0;
  for (const end of ends) {
    for (const onLoss of ["wait", "activate", "exit"] as const) {
      for (let bits = 0; bits < 16; bits++) {
        const [some, isCurrent, isWhole, mayComeBack] = [1, 2, 4, 8].map((bit) => (bits & bit) > 0);
        const known = { end, onLoss, committed: some ? 1 : 0, isCurrent, isWhole, mayComeBack };
        const step = afterSecondarySession(known);
        if (step.do !== "activate") continue;
        activated++;
        assert.deepEqual(
          { ...known, mayComeBack: true },
          { ...READY, committed: 1 },
          "a VM was started without a loss, leave, or state",
        );
      }
    }
  }
  assert.equal(activated, 2, "with and without anybody who may come back");
});

/** A sender of this VM that we refuse: what differs from it is what a row is about. */
const SEEN: SeenSecondaryEnd = {
  wasTold: false,
  wasAdmitted: true,
  isStranger: false,
  hasStorageFailed: false,
  isGone: false,
};

const ENDS: readonly (readonly [string, Partial<SeenSecondaryEnd>, string])[] = [
  ["bytes at fault", {}, "refused"],
  ["silence, or the end of its connection", { isGone: true }, "lost"],
  ["our disk is full", { hasStorageFailed: true }, "storage"],
  ["our disk fails, and the sender goes", { hasStorageFailed: true, isGone: true }, "storage"],
  ["a connection without a HELLO goes", { wasAdmitted: false, isGone: true }, "no-sender"],
  ["bytes at fault before HELLO", { wasAdmitted: false }, "no-sender"],
  ["another VM, by its HELLO", { wasAdmitted: false, isStranger: true }, "no-sender"],
  ["another VM, by its stream", { isStranger: true }, "no-sender"],
  ["kemari failover, and it has closed", { wasTold: true, isGone: true }, "yielded"],
  ["kemari failover, and our disk fails", { wasTold: true, hasStorageFailed: true }, "yielded"],
];

for (const [what, seen, wanted] of ENDS) {
  Deno.test(`a session's end: ${what}: ${wanted}`, () => {
    assert.equal(judgeSecondaryEnd({ ...SEEN, ...seen }), wanted);
  });
}
