import assert from "node:assert/strict";
import {
  judgePrimaryEnd,
  judgePrimaryEndByFate,
  type SeenPrimaryEnd,
} from "./primary_session_end.ts";

const SEEN: SeenPrimaryEnd = { wasShutDown: false, isInterrupted: false };

const TABLE:
  readonly (readonly [string, Partial<SeenPrimaryEnd>, ReturnType<typeof judgePrimaryEnd>])[] = [
    ["the secondary has taken over", { fault: "taken-over" }, "taken-over"],
    [
      "the same, and the VM was shut down",
      { fault: "taken-over", wasShutDown: true },
      "taken-over",
    ],
    ["we were given up", { fault: "silence" }, "silence"],
    ["we were given up, and are interrupted", { fault: "silence", isInterrupted: true }, "silence"],
    ["the VM was shut down", { said: "vm-ended" }, "vm-ended"],
    ["QEMU's stream ends", { lost: "qemu" }, "look-at-vm"],
    ["QEMU's stream ends in an interruption", { lost: "qemu", isInterrupted: true }, "look-at-vm"],
    ["the guest sleeps", { said: "guest-sleeps" }, "look-at-vm"],
    ["the secondary is lost", { lost: "peer" }, "secondary-lost"],
    ["the same, and the VM was shut down", { lost: "peer", wasShutDown: true }, "look-at-vm"],
    ["the same in an interruption", { lost: "peer", isInterrupted: true }, "secondary-lost"],
    ["the secondary has another sender", { fault: "busy" }, "busy"],
    ["it activates", { fault: "activating" }, "busy"],
    ["it is full", { fault: "storage" }, "storage"],
    ["it is full, and the VM was shut down", { fault: "storage", wasShutDown: true }, "look-at-vm"],
    ["it has another VM", { fault: "other-vm" }, "fault"],
    ["bytes at fault", { fault: "bad-value" }, "fault"],
    ["a disk of ours is lost", { lost: "disk" }, "fault"],
    ["Ctrl-C", { isInterrupted: true }, "interrupted"],
    ["a bug", {}, "fault"],
  ];

for (const [what, seen, wanted] of TABLE) {
  Deno.test(`a session's end: ${what}: ${wanted}`, () => {
    assert.equal(judgePrimaryEnd({ ...SEEN, ...seen }), wanted);
  });
}

Deno.test("a stream that our own farewell may have cut is no rest of the VM's", () => {
  assert.equal(judgePrimaryEndByFate({ kind: "alive" }, true), "interrupted");
  assert.equal(judgePrimaryEndByFate({ kind: "alive" }, false), "vm-rests");
  assert.equal(judgePrimaryEndByFate({ kind: "dead" }, true), "vm-died");
  assert.equal(judgePrimaryEndByFate({ kind: "ended", reason: "x" }, true), "vm-ended");
  assert.equal(judgePrimaryEndByFate({ kind: "asleep" }, true), "vm-rests");
});
