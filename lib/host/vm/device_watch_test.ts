import assert from "node:assert/strict";
import { DeviceWatch } from "./device_watch.ts";

const TIMER = { name: "timer", instance: 0, version: 2 };
const RNG = { name: "0000:00:04.0/virtio-rng", instance: 0, version: 1 };

Deno.test("a device that comes or goes between two full states is told of by name", () => {
  const watch = new DeviceWatch();
  const first = [TIMER];
  for (const sections of [undefined, first, first, [TIMER], undefined]) {
    watch.look(sections);
    assert.equal(watch.change, null);
  }
  const plugged = [TIMER, RNG];
  watch.look(plugged);
  assert.equal(watch.change, "0000:00:04.0/virtio-rng has come");
  watch.look(plugged);
  watch.look([RNG, TIMER]);
  assert.equal(watch.change, "0000:00:04.0/virtio-rng has come", "it is told of until the next");
  watch.look([TIMER]);
  assert.equal(watch.change, "0000:00:04.0/virtio-rng has gone");
});
