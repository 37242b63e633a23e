import assert from "node:assert/strict";
import { UsageError } from "../../errors.ts";
import { checkTiming } from "./connection.ts";

Deno.test("a grace time has to be longer than the time between two heartbeats", () => {
  checkTiming({ heartbeatMs: 500, graceMs: 501 });
  assert.throws(() => checkTiming({ heartbeatMs: 500, graceMs: 500 }), UsageError);
});
