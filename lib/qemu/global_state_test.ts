import assert from "node:assert/strict";
import { listStreams, loadStream } from "../../fixtures/streams.ts";
import { runStateOf } from "./global_state.ts";
import { recordedPass } from "./recorded_state.ts";

Deno.test("the run state of every recorded VM is told, and of nothing else", () => {
  let told = 0;
  for (const { name, kind } of listStreams()) {
    if (kind !== "plain" || /no-vmdesc|shared|dirty-bitmap|uuid/.test(name)) continue;
    const { state, json } = recordedPass(loadStream(name));
    const device = state.slice();
    assert.equal(runStateOf({ device, vmdescription: json }), "running", name);
    assert.equal(runStateOf({ device: device.slice(0, 100), vmdescription: json }), undefined);
    assert.equal(runStateOf({ device, vmdescription: json.slice(1) }), undefined);
    told++;
  }
  assert.ok(told > 5);
});
