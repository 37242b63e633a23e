import assert from "node:assert/strict";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { DeviceLayout } from "./device_layout.ts";
import { sketchDeviceState } from "./device_sketch.ts";
import { recordedCheckpoints } from "../testing/recorded_state.ts";

Deno.test("recorded checkpoints have the shape of the one before, if and only if they have its sections", () => {
  let fitting = 0;
  for (const { name } of listStreams().filter((each) => each.kind === "colo")) {
    const layout = new DeviceLayout();
    let before = "";
    for (const { state, offset } of recordedCheckpoints(loadStream(name))) {
      const { sections } = sketchDeviceState(state, [], offset);
      const shape = JSON.stringify(sections);
      assert.equal(layout.fits(state), shape === before, name);
      if (shape === before) fitting++;
      layout.remember(state, sections);
      before = shape;
    }
  }
  assert.ok(fitting > 10);
});

Deno.test("a byte changed in any header, footer or between sections is another shape, in a payload none", () => {
  const [{ state, offset }] = recordedCheckpoints(loadStream("colo-11.1-idle"));
  const { sections } = sketchDeviceState(state, [], offset);
  const layout = new DeviceLayout();
  assert.equal(layout.fits(state), false, "nothing was remembered");
  layout.remember(state, sections);
  const inPayload = (at: number) =>
    sections.some(({ start, headerBytes, sizeBytes }) =>
      at >= start + headerBytes && at < start + sizeBytes - 5
    );
  for (let at = 0; at < state.length; at++) {
    const changed = state.slice();
    changed[at] ^= 0x40;
    assert.equal(layout.fits(changed), inPayload(at), `byte ${at}`);
  }
  assert.equal(layout.fits(state.subarray(0, -1)), false);
});
