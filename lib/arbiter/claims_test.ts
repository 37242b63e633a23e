/** The steps of both sides, one by one; the search in model_test.ts has them all together. */
import assert from "node:assert/strict";
import type { Answer } from "./claim.ts";
import {
  answered,
  askOf,
  type PrimaryClaim,
  runs,
  speaks,
  startPrimary,
  told,
} from "./primary_claim.ts";
import { type Alone, aloneAfter, ANY_INSTANCE, protectedAfter, type Register } from "./register.ts";
import {
  answeredSecondary,
  askOfSecondary,
  mayAcknowledge,
  type SecondaryClaim,
  toldSecondary,
} from "./secondary_claim.ts";

const me = { name: "a", instance: "000000000000000a" };
const before = { name: "a", instance: "0000000000000009" };
const other = { name: "b", instance: "000000000000000b" };
const third = { name: "c", instance: "000000000000000c" };
const mine: Alone = { state: "alone", vm: "vm", generation: 4, side: me };
const pair = protectedAfter(mine, other);
const current = (register: Register | undefined): Answer => ({ is: "current", register });

const STARTS: readonly (readonly [string, Register | undefined, Register | undefined, string])[] = [
  ["no register", undefined, undefined, "claims 1"],
  ["its own", { ...mine, side: before }, undefined, "claims 5"],
  ["its own pair's", protectedAfter({ ...mine, side: before }, other), undefined, "claims 6"],
  [
    "named by an operator",
    { ...mine, side: { ...me, instance: ANY_INSTANCE } },
    undefined,
    "claims 5",
  ],
  ["the other side's", { ...mine, side: other }, undefined, "not-ours"],
  [
    "a pair of which it is the secondary",
    protectedAfter({ ...mine, side: other }, before),
    undefined,
    "not-ours",
  ],
  ["lost, and last seen as its own", undefined, mine, "claims 5"],
  ["lost, and last seen as the other's", undefined, { ...mine, side: other }, "not-ours"],
  [
    "older than what was last seen",
    { ...mine, generation: 2 },
    { ...mine, side: other },
    "not-ours",
  ],
];

for (const [of, register, known, result] of STARTS) {
  Deno.test(`a VM starts, and the register is ${of}: ${result}`, () => {
    const claim = answered(startPrimary("vm", known), { do: "read" }, current(register), me);
    assert.equal(speaks(claim), result === "not-ours" ? "nothing" : "acknowledged");
    if (result === "not-ours") {
      assert.ok(claim.at === "ended" && claim.why === "not-ours");
      return assert.equal(runs(claim), false);
    }
    assert.ok(claim.at === "claiming");
    assert.equal(`claims ${claim.to.generation}`, result);
    assert.deepEqual(claim.from, register);
    const won = answered(claim, askOf(claim)!, { is: "won" }, me);
    assert.deepEqual(won, { at: "alone", register: claim.to });
    assert.equal(speaks(won), "everything");
  });
}

const CLAIMED = aloneAfter(pair, me);
const CLAIMS: readonly (readonly [string, Answer, string])[] = [
  ["it is won", { is: "won" }, "alone"],
  ["nobody answers", { is: "unknown", why: "" }, "claiming"],
  ["the secondary was first", current(aloneAfter(pair, other)), "ended"],
  ["the register has not changed", current(pair), "claiming"],
  [
    "an operator has named it",
    current({ ...CLAIMED, generation: 9, side: { ...me, instance: ANY_INSTANCE } }),
    "alone",
  ],
  [
    "its side's later process has the VM",
    current({ ...CLAIMED, generation: 9, side: before }),
    "ended",
  ],
  [
    "its own joining is done late",
    current(protectedAfter({ ...mine, generation: 8 }, third)),
    "claiming",
  ],
  [
    "another pair is there",
    current(protectedAfter({ ...mine, generation: 8, side: third }, other)),
    "ended",
  ],
  ["the register is gone", current(undefined), "doubt"],
  ["the register went back", current({ ...mine, generation: 2 }), "doubt"],
  ["something else is there", { is: "foreign", why: "no JSON" }, "doubt"],
];

for (const [of, answer, result] of CLAIMS) {
  Deno.test(`a primary that lost its secondary asks, and ${of}: ${result}`, () => {
    const claim = told({ at: "protected", register: pair }, { is: "lost" }, me);
    assert.equal(speaks(claim), "acknowledged");
    const next = answered(claim, askOf(claim)!, answer, me);
    const doubt = next.at === "claiming" && next.doubt !== undefined;
    assert.equal(doubt ? "doubt" : next.at, result);
    assert.equal(speaks(next) === "everything", result === "alone");
    if (doubt) assert.deepEqual(askOf(next), askOf(claim), "it asks again");
  });
}

Deno.test("a joining that is given up moves the generation on", () => {
  const filling = told({ at: "alone", register: mine }, { is: "fill" }, me);
  assert.equal(speaks(filling), "acknowledged");
  assert.deepEqual(told(filling, { is: "lost" }, me), { at: "alone", register: mine });
  const joining = told(filling, { is: "whole", secondary: other }, me);
  assert.ok(joining.at === "joining");
  const claim = told(joining, { is: "lost" }, me);
  assert.equal(speaks(claim), "acknowledged");
  assert.deepEqual(askOf(claim), { do: "swap", from: mine, to: aloneAfter(mine, me) });
  // The joining was done all the same, and later.
  const again = answered(claim, askOf(claim)!, current(pair), me);
  assert.deepEqual(askOf(again), { do: "swap", from: pair, to: aloneAfter(pair, me) });
});

Deno.test("an answer to something else changes nothing", () => {
  const claim = told({ at: "protected", register: pair }, { is: "lost" }, me);
  const stale = { do: "swap", from: mine, to: pair } as const;
  assert.equal(answered(claim, stale, { is: "won" }, me), claim);
  assert.equal(
    answered({ at: "protected", register: pair }, stale, { is: "won" }, me).at,
    "protected",
  );
});

Deno.test("a handover ends when the register names the other side, and may be taken back before", () => {
  const giving = told({ at: "protected", register: pair }, { is: "give" }, me);
  assert.equal(runs(giving), false);
  assert.deepEqual(askOf(giving), { do: "swap", from: pair, to: aloneAfter(pair, other) });
  const given = answered(giving, askOf(giving)!, { is: "won" }, me);
  assert.ok(given.at === "ended" && given.why === "given");
  const back = told(giving, { is: "take-back" }, me);
  assert.equal(runs(back), true);
  assert.equal(speaks(back), "acknowledged");
  const late = answered(back, askOf(back)!, current(aloneAfter(pair, other)), me);
  assert.equal(late.at, "ended");
});

const ASKING: SecondaryClaim = toldSecondary(
  { at: "armed", register: pair },
  { is: "claim" },
  other,
);
const ANSWERS: readonly (readonly [string, Answer, string])[] = [
  ["it is won", { is: "won" }, "active"],
  ["nobody answers", { is: "unknown", why: "" }, "asking"],
  ["the primary was first", current(aloneAfter(pair, me)), "beaten"],
  ["the primary had given it", current(aloneAfter(pair, other)), "active"],
  ["a third side protects the VM", current(protectedAfter(aloneAfter(pair, me), third)), "beaten"],
  ["the register is gone", current(undefined), "doubt"],
  ["the register went back", current(mine), "doubt"],
  ["something else is there", { is: "foreign", why: "a later format" }, "doubt"],
  ["the register has not changed", current(pair), "asking"],
];

for (const [of, answer, result] of ANSWERS) {
  Deno.test(`a secondary asks, and ${of}: ${result}`, () => {
    assert.equal(mayAcknowledge(ASKING), false);
    const next = answeredSecondary(ASKING, askOfSecondary(ASKING)!, answer, other);
    const doubt = next.at === "asking" && next.doubt !== undefined;
    assert.equal(doubt ? "doubt" : next.at, result);
  });
}

Deno.test("a secondary that asks takes no session, and one that is handed the VM none either", () => {
  assert.equal(toldSecondary(ASKING, { is: "session" }, other), ASKING);
  const given = toldSecondary({ at: "armed", register: pair }, { is: "handed-over" }, other);
  assert.equal(mayAcknowledge(given), false);
  const named = toldSecondary(given, { is: "named", register: aloneAfter(pair, other) }, other);
  assert.equal(named.at, "active");
  const wrong = toldSecondary(given, { is: "named", register: aloneAfter(pair, third) }, other);
  assert.equal(wrong, given);
});

Deno.test("only what speaks of this very process arms it", () => {
  const unarmed: SecondaryClaim = { at: "unarmed" };
  assert.equal(toldSecondary(unarmed, { is: "arm", register: pair }, other).at, "armed");
  assert.equal(toldSecondary(unarmed, { is: "arm", register: pair }, third).at, "unarmed");
  assert.equal(toldSecondary(unarmed, { is: "claim" }, other).at, "unarmed");
  const claim: PrimaryClaim = startPrimary("vm");
  assert.equal(speaks(claim), "nothing");
});
