import assert from "node:assert/strict";
import { type AtFailover, type Behind, mayFailOver } from "./failover.ts";

const ASKED: AtFailover = { committed: 7, behind: undefined, isSenderThere: false, stale: false };

/** What happens, what is known of it, the answer. */
const TABLE: readonly (readonly [string, Partial<AtFailover>, string])[] = [
  ["the primary is lost", {}, "take-over"],
  ["the primary is there, and protects its VM", { isSenderThere: true }, "take-over"],
  ["nothing was ever committed", { committed: 0, stale: true }, "refuse nothing-committed"],
  ["recv was started anew", { behind: "unknown" }, "take-over, warned"],
  ["the VM goes on there, unprotected", { behind: "goes-on" }, "refuse goes-on"],
  [
    "the same, and it is wanted all the same",
    { behind: "goes-on", stale: true },
    "take-over, warned",
  ],
  ["the VM was shut down", { behind: "vm-ended" }, "refuse vm-ended"],
  ["the sender was refused", { behind: "refused" }, "refuse refused"],
  ["there was no room", { behind: "storage" }, "refuse storage"],
  ["a sender came, and went before its commit", { behind: "returned" }, "refuse returned"],
  [
    "a sender has just come back",
    { behind: "returned", isSenderThere: true, stale: true },
    "refuse sender-is-there",
  ],
];

for (const [what, known, wanted] of TABLE) {
  Deno.test(`failover: ${what}: ${wanted}`, () => {
    const answer = mayFailOver({ ...ASKED, ...known });
    const words = answer.do === "refuse" ? `refuse ${answer.why}` : answer.do;
    assert.equal("warns" in answer && answer.warns ? `${words}, warned` : words, wanted);
  });
}

Deno.test("of all cases, what is known to be old is started only if it is asked for by name", () => {
  const kinds = ["goes-on", "vm-ended", "refused", "storage", "returned"] as const;
  for (const behind of kinds satisfies readonly Behind[]) {
    for (const isSenderThere of [false, true]) {
      const answer = mayFailOver({ ...ASKED, behind, isSenderThere });
      assert.equal(answer.do, "refuse");
    }
  }
});
