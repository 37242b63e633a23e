import assert from "node:assert/strict";
import { OwnPauses } from "./own_pauses.ts";

const GRACE_MS = 1000;

Deno.test("a pause counts from its end until a grace time later, whoever looks first", () => {
  // When it ticked, when it is asked, and whether it stood still for too long.
  const cases: [string, number[], number, boolean][] = [
    ["never a pause", [50, 100, 150], 160, false],
    ["a pause that the peer waits out", [50, 900, 950], 960, false],
    ["asked before the first tick behind it", [50], 1100, true],
    ["the first tick behind it", [50, 1100], 1100, true],
    ["shortly behind it", [50, 1100, 1500, 2000], 2050, true],
    ["a grace time later", [50, 1100, 1500, 2101], 2110, false],
    ["a second pause", [50, 1100, 2101, 3200], 3300, true],
  ];
  for (const [name, ticks, askedAt, expected] of cases) {
    const pauses = new OwnPauses(0, GRACE_MS * 5);
    for (const now of ticks) pauses.tick(now, GRACE_MS);
    assert.equal(pauses.isRecent(askedAt, GRACE_MS), expected, name);
  }
});

Deno.test("a peer that never gives up leaves this end's own patience to count", () => {
  for (const peerGraceMs of [0, undefined]) {
    const pauses = new OwnPauses(0, GRACE_MS);
    pauses.tick(900, peerGraceMs);
    assert.equal(pauses.isRecent(1800, peerGraceMs), false);
    pauses.tick(2000, peerGraceMs);
    assert.equal(pauses.isRecent(2000, peerGraceMs), true);
  }
});
