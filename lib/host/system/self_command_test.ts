import assert from "node:assert/strict";
import { selfCommand } from "./self_command.ts";

Deno.test("what kemari starts of itself logs as it was told to log", () => {
  const tail = (own: string[]) => selfCommand(["guard", "/run/qmp"], own).slice(-4);
  assert.deepEqual(tail(["protect", "h:1"]).slice(2), ["guard", "/run/qmp"]);
  const json = ["guard", "/run/qmp", "--log-format", "json"];
  assert.deepEqual(tail(["protect", "--log-format", "json", "h:1"]), json);
  assert.deepEqual(tail(["protect", "h:1", "--log-format=json"]), json);
  assert.deepEqual(tail(["protect", "--log-format", "text", "json"]).slice(2), json.slice(0, 2));
});
