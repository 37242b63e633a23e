import assert from "node:assert/strict";
import { checkFencing } from "./recv.ts";

Deno.test("activation on loss needs a word on fencing", () => {
  for (const onLoss of ["wait", "exit"] as const) checkFencing({ onLoss });
  checkFencing({ onLoss: "activate", fence: "none" });
  checkFencing({ onLoss: "activate", fence: "power-off primary" });
  assert.throws(() => checkFencing({ onLoss: "activate" }), /split brain/);
  assert.throws(() => checkFencing({ onLoss: "wait", fence: " " }), /--fence needs a command/);
});
