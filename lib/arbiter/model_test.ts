/**
 * Every interleaving of a small world, searched to the end; and one mutant for each rule, which the
 * search must find.
 */
import assert from "node:assert/strict";
import { search } from "./testing/search.ts";
import { type Budget, firstWorld, RULES, type Rules } from "./testing/world.ts";

const NONE: Budget = {
  cuts: 0,
  crashes: 0,
  boots: 0,
  timeouts: 0,
  handovers: 0,
  epochs: 2,
  sessions: 0,
};

/** Worlds that are searched whole. */
const WORLDS: readonly (readonly [string, Partial<Budget>])[] = [
  ["a cut, late requests, another secondary", { cuts: 1, timeouts: 2, sessions: 1 }],
  ["two cuts, two more generations", { cuts: 2, timeouts: 1, sessions: 2 }],
  ["a handover that is late, and a cut", { cuts: 1, handovers: 1, timeouts: 1, sessions: 1 }],
  ["a death, a cut, and another secondary", { crashes: 1, cuts: 1, timeouts: 1, sessions: 1 }],
  ["all die, and some boot their VM", { crashes: 2, boots: 2, timeouts: 1 }],
];

for (const [of, budget] of WORLDS) {
  Deno.test(`one side speaks, and nothing that was let out is lost: ${of}`, () => {
    const found = search(firstWorld({ ...NONE, ...budget }), RULES, 400_000);
    assert.deepEqual({ ...found, states: 0, steps: 0 }, { states: 0, steps: 0 });
    assert.ok(found.states > 1000, `${found.states} worlds are no search`);
    Deno.writeTextFileSync("/tmp/wt/arb.found", of + " " + JSON.stringify(found) + "\n", {
      append: true,
    });
  });
}

/**
 * What is wrong in each, the trouble in which that shows, and what is then seen. Where nothing worse than
 * a step towards harm can be seen, the search is strict.
 */
const MUTANTS: readonly (readonly [string, Partial<Rules>, Partial<Budget>, RegExp])[] = [
  [
    "a primary that speaks before the register answers",
    { speaks: (claim) => claim.at === "claiming" ? "everything" : RULES.speaks(claim) },
    { cuts: 1 },
    /lets out epoch 2, but the VM was taken over from epoch 1|epoch 2 was let out|both speak/,
  ],
  [
    "a primary that takes silence for consent",
    {
      answered: (claim, ask, answer, me) =>
        RULES.answered(claim, ask, answer.is === "unknown" ? { is: "won" } : answer, me),
    },
    { cuts: 1, timeouts: 1 },
    /lets out epoch 2, but the VM was taken over from epoch 1|epoch 2 was let out|both speak/,
  ],
  [
    "a secondary that acknowledges while it asks",
    { mayAcknowledge: () => true },
    { cuts: 1, timeouts: 1, sessions: 1 },
    /epoch 2, but the VM was taken over from epoch 1|from epoch 1, but epoch 2 was let out/,
  ],
  [
    "a secondary that takes silence for consent",
    {
      answeredSecondary: (claim, ask, answer, me) =>
        RULES.answeredSecondary(claim, ask, answer.is === "unknown" ? { is: "won" } : answer, me),
    },
    { cuts: 1, timeouts: 1 },
    /both speak|let out/,
  ],
  [
    "protection that begins without holding first",
    {
      speaks: (claim) =>
        claim.at === "filling" || claim.at === "joining" ? "everything" : RULES.speaks(claim),
    },
    { cuts: 2, sessions: 1 },
    /takes over from epoch 1, but epoch 2 was let out/,
  ],
  [
    "a secondary that is armed before the register holds it",
    { armsEarly: true, isStrict: true },
    { cuts: 1, sessions: 1 },
    /is armed with what the register never held/,
  ],
  [
    "a VM that starts without asking whose it is",
    {
      answered: (claim, ask, answer, me) =>
        claim.at === "starting"
          ? RULES.answered(claim, ask, { is: "current", register: undefined }, me)
          : RULES.answered(claim, ask, answer, me),
      isEqual: (a, b) => b === undefined || RULES.isEqual(a, b),
    },
    { crashes: 1, boots: 1 },
    /both speak freely/,
  ],
  [
    "a secondary that runs as soon as it is handed the VM",
    {
      toldSecondary: (claim, news, me) =>
        news.is === "handed-over" && claim.at === "armed"
          ? { at: "active", register: { state: "alone", vm: "vm", generation: 2, side: me } }
          : RULES.toldSecondary(claim, news, me),
    },
    { handovers: 1, timeouts: 2 },
    /both speak freely/,
  ],
  [
    "a handover before the last acknowledgement",
    { givesWhole: false },
    { handovers: 1 },
    /a handover without its last transaction/,
  ],
  [
    "protection given up without moving the generation on",
    {
      told: (claim, news, me) =>
        claim.at === "joining" && news.is === "lost"
          ? { at: "alone", register: claim.from }
          : RULES.told(claim, news, me),
      isStrict: true,
    },
    { cuts: 2, timeouts: 1, sessions: 1 },
    /speaks freely, and the register does not name it/,
  ],
  [
    "a store that does not compare the generation, and a third side with an old replica",
    {
      isEqual: (a, b) => {
        if (a?.state !== "protected" || b?.state !== "protected") return RULES.isEqual(a, b);
        return a.primary.name === b.primary.name;
      },
    },
    { cuts: 1, sessions: 1 },
    /takes over from epoch 1, but epoch 2 was let out/,
  ],
];

for (const [of, mutant, budget, why] of MUTANTS) {
  Deno.test(`the search finds ${of}`, () => {
    const rules = { ...RULES, isStrict: false, ...mutant };
    const found = search(firstWorld({ ...NONE, ...budget }), rules, 400_000);
    Deno.writeTextFileSync("/tmp/wt/arb.found", of + " " + JSON.stringify(found) + "\n", {
      append: true,
    });
    assert.match(found.broken?.why ?? "nothing was found", why);
  });
}
