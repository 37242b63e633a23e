import assert from "node:assert/strict";
import { type AtRecvEnd, keepsFiles } from "./replica_files.ts";

/** A recv that fails with a replica in a folder of its own choice. */
const KNOWN: AtRecvEnd = { isGiven: false, committed: 7, isAsked: false, isNamed: false };

const TABLE: readonly (readonly [string, Partial<AtRecvEnd>, boolean])[] = [
  ["recv fails", {}, true],
  ["recv fails, in a named folder", { isNamed: true }, true],
  ["Ctrl-C", { isAsked: true }, false],
  ["Ctrl-C, in a named folder", { isAsked: true, isNamed: true }, true],
  ["nothing was committed", { committed: 0 }, false],
  ["nothing was committed, in a named folder", { committed: 0, isNamed: true }, false],
  ["a VM has it", { isGiven: true }, false],
  ["a VM has it, in a named folder", { isGiven: true, isNamed: true }, false],
];

for (const [what, known, wanted] of TABLE) {
  Deno.test(`a replica's files: ${what}: they ${wanted ? "stay" : "go"}`, () => {
    assert.equal(keepsFiles({ ...KNOWN, ...known }), wanted);
  });
}
