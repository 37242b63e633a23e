import assert from "node:assert/strict";
import { ReplicaAge } from "./replica_age.ts";
import type { SecondaryEnd } from "./secondary_end.ts";

type Step = "comes" | "commits" | SecondaryEnd | "lost, we stood still" | "yielded, we stood still";

/** What happens, in order, and why the replica is not the VM's last state then. */
const TABLE: readonly (readonly [readonly Step[], string])[] = [
  [[], "unknown"],
  [["comes"], "returned"],
  [["comes", "commits"], "current"],
  [["comes", "lost"], "returned"],
  [["comes", "commits", "lost"], "current"],
  [["comes", "commits", "lost, we stood still"], "away"],
  [["comes", "commits", "yielded"], "current"],
  [["comes", "commits", "yielded, we stood still"], "away"],
  [["comes", "lost, we stood still"], "returned"],
  [["comes", "commits", "goes-on"], "goes-on"],
  [["comes", "commits", "vm-ended"], "vm-ended"],
  [["comes", "commits", "refused"], "refused"],
  [["comes", "commits", "storage"], "storage"],
  // A sender comes again after each of them.
  [["comes", "commits", "lost", "comes"], "returned"],
  [["comes", "commits", "lost", "comes", "lost"], "returned"],
  [["comes", "commits", "goes-on", "comes", "commits"], "current"],
  // Strangers, and connections that never said HELLO.
  [["no-sender"], "unknown"],
  [["comes", "commits", "lost", "no-sender"], "current"],
  [["comes", "commits", "lost", "comes", "no-sender"], "current"],
  [["comes", "commits", "goes-on", "comes", "no-sender"], "goes-on"],
  [["comes", "no-sender", "no-sender"], "unknown"],
  [["comes", "commits", "refused", "no-sender"], "refused"],
];

for (const [steps, wanted] of TABLE) {
  Deno.test(`a replica's age: ${steps.join("; ") || "found at the start"}: ${wanted}`, () => {
    const age = new ReplicaAge();
    for (const step of steps) {
      if (step === "comes") age.senderCame();
      else if (step === "commits") age.committed();
      else {
        const [end, stoodStill] = step.split(", ") as [SecondaryEnd, string | undefined];
        age.ended(end, stoodStill !== undefined);
      }
    }
    assert.equal(age.behind ?? "current", wanted);
  });
}
