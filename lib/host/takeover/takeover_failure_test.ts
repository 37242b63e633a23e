import assert from "node:assert/strict";
import type { TakeoverFailure } from "../../decisions/takeover_plan.ts";
import {
  InterruptedError,
  type Party,
  QemuError,
  StateError,
  TransportError,
} from "../../errors.ts";
import { ERRNO } from "../system/linux.ts";
import { RanAndEnded } from "./standby.ts";
import { takeoverFailure } from "./takeover_failure.ts";

const fails = (party: Party, cause?: unknown) =>
  new TransportError("x", "write", "fails", { party, cause });

const TABLE: readonly (readonly [string, unknown, TakeoverFailure])[] = [
  ["the fence", fails("fence"), "fence"],
  ["a disk", fails("disk"), "disk"],
  ["a disk without room", fails("disk", ERRNO.ENOSPC), "room"],
  ["the note beside the replica's files", fails("replica"), "room"],
  ["a file without room", fails("successor", ERRNO.ENOSPC), "room"],
  ["a pipe's reader goes", fails("successor", ERRNO.EPIPE), "successor"],
  ["QEMU refuses the state", new QemuError("standby", "GenericError", "no"), "successor"],
  ["a standby that ran", new RanAndEnded("--standby", "write", "ended"), "ran"],
  ["Ctrl-C", new InterruptedError("SIGINT"), "other"],
  ["a bug", new StateError("impossible"), "other"],
  ["no error of ours", new TypeError("undefined"), "other"],
];

for (const [what, error, wanted] of TABLE) {
  Deno.test(`whose failing: ${what}: ${wanted}`, () => {
    assert.equal(takeoverFailure(error), wanted);
  });
}
