import assert from "node:assert/strict";
import { waysOf } from "./bitmap.ts";

Deno.test("every way through a set finds the same pages", () => {
  const dirty = [0, 31, 32, 1000, 1023, 1024, 4095];
  const mixed = dirty.reduce((all, page) => all ^ page);
  for (const { name, travel } of waysOf(4096, dirty)) assert.equal(travel(), mixed, name);
});
