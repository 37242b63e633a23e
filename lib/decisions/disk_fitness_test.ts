import assert from "node:assert/strict";
import { type DiskStanding, type DiskUnfit, unnamedDisks, whyUnfit } from "./disk_fitness.ts";

const COPY: DiskStanding = {
  name: "d",
  mode: "replicated",
  isNamed: true,
  isCopied: true,
  isOutrun: false,
};
const IMAGE: DiskStanding = { ...COPY, mode: "shared", isCopied: false };

const TABLE: readonly (readonly [string, DiskStanding, DiskUnfit | undefined])[] = [
  ["a copy that is complete", COPY, undefined],
  ["a copy that has not all come", { ...COPY, isCopied: false }, "incomplete"],
  ["a copy of an earlier session, that today's does not name", {
    ...COPY,
    isNamed: false,
  }, "unnamed"],
  ["a copy that no session has named", { ...COPY, isNamed: false, isCopied: false }, "unnamed"],
  ["a copy whose sender has come back, and committed nothing", {
    ...COPY,
    isOutrun: true,
  }, undefined],
  ["a copy of what an older version has stored", {
    ...COPY,
    isNamed: undefined,
    isCopied: false,
  }, undefined],
  ["a shared image that the primary has gone on with", { ...IMAGE, isOutrun: true }, "outrun"],
  ["a shared image that it has not", IMAGE, undefined],
  ["a shared image that the session does not name", { ...IMAGE, isNamed: false }, "unnamed"],
  ["the same, which the primary writes to", {
    ...IMAGE,
    isNamed: false,
    isOutrun: true,
  }, "unnamed"],
];

for (const [what, disk, wanted] of TABLE) {
  Deno.test(`${what}: ${wanted ?? "goes with the state"}`, () => {
    assert.equal(whyUnfit(disk), wanted);
  });
}

Deno.test("of all cases, a disk that is known not to be named goes with no state", () => {
  for (const mode of ["replicated", "shared"] as const) {
    for (const isCopied of [false, true]) {
      for (const isOutrun of [false, true]) {
        const disk = { name: "d", mode, isCopied, isOutrun, isNamed: false };
        assert.equal(whyUnfit(disk), "unnamed");
      }
    }
  }
});

Deno.test("a session commits nothing before it has named every disk that is here", () => {
  const cases: readonly (readonly [string[], string[], string[]])[] = [
    [[], [], []],
    [[], ["a"], []],
    [["a"], ["a"], []],
    [["a"], [], ["a"]],
    [["a", "b"], ["b"], ["a"]],
    [["a", "b"], ["c"], ["a", "b"]],
  ];
  for (const [here, named, missing] of cases) {
    assert.deepEqual(unnamedDisks(here, new Set(named)), missing);
  }
});
