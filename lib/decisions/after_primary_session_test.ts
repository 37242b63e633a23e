import assert from "node:assert/strict";
import { type AfterPrimarySession, afterPrimarySession } from "./after_primary_session.ts";
import type { AtPrimaryEnd } from "./primary_end.ts";

const KNOWN: AtPrimaryEnd = {
  end: "secondary-lost",
  onSecondaryLoss: "continue",
  stoodStill: false,
  isInterrupted: false,
};
const TRIES = { retry: true, wasLinked: true, isFirst: false, hasTaps: false };

type Row = readonly [
  string,
  Partial<AtPrimaryEnd>,
  Partial<Omit<AfterPrimarySession, "known">>,
  string,
];
const RESTS = { end: "vm-rests" } as const;
const STOP = { onSecondaryLoss: "stop" } as const;

const TABLE: readonly Row[] = [
  ["the secondary is lost", {}, {}, "retry again"],
  ["it was never spoken to", {}, { tries: { ...TRIES, wasLinked: false } }, "retry again-later"],
  ["it is full", { end: "storage" }, {}, "retry again-later"],
  ["no retry is wanted", {}, { tries: { ...TRIES, retry: false } }, "fail error"],
  ["the VM is to stop", STOP, {}, "fail error"],
  ["it has given us up, and does not answer", { end: "silence" }, { fate: "stops" }, "fail error"],
  ["the VM is the secondary's", { end: "taken-over" }, {}, "fail error"],
  ["Ctrl-C", { end: "interrupted", isInterrupted: true }, { heard: true }, "fail error"],
  ["the guest sleeps", RESTS, { vm: "asleep", heard: true }, "retry awake"],
  [
    "the same, in an interruption",
    { ...RESTS, isInterrupted: true },
    { vm: "asleep" },
    "fail error",
  ],
  ["migrate_cancel", RESTS, { vm: "cancelled", heard: true }, "retry left-alone"],
  ["migrate_cancel, unheard", RESTS, { vm: "cancelled" }, "retry left-alone"],
  ["the same, the VM is to stop", { ...RESTS, ...STOP }, { vm: "cancelled" }, "fail fate"],
  [
    "the same, heard",
    { ...RESTS, ...STOP },
    { vm: "cancelled", heard: true },
    "retry left-alone",
  ],
  ["the stream is cut", RESTS, { vm: "alive", heard: true }, "retry left-alone"],
  ["QEMU's migration fails", { end: "fault" }, { vm: "failed", heard: true }, "fail fate"],
  ["the VM was shut down", { end: "vm-ended" }, { vm: "ended", heard: true }, "fail fate"],
  ["QEMU has died", { end: "vm-died" }, { vm: "dead" }, "fail fate"],
];

for (const [what, known, facts, wanted] of TABLE) {
  Deno.test(`after a session: ${what}: ${wanted}`, () => {
    const step = afterPrimarySession({
      known: { ...KNOWN, ...known },
      fate: "goes-on",
      tries: TRIES,
      heard: false,
      ...facts,
    });
    assert.equal(step.do === "fail" ? `fail ${step.with}` : `retry ${step.when}`, wanted);
  });
}
