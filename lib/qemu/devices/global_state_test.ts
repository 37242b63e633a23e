import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { asRunning, runStateOf } from "./global_state.ts";
import { recordedPass } from "../testing/recorded_state.ts";

/** Every recorded VM whose device state comes with its description, which tells its end. */
function* recordedVms(): Generator<{ name: string; device: Uint8Array }> {
  for (const { name, kind } of listStreams()) {
    if (kind !== "plain" || /no-vmdesc|shared|dirty-bitmap|uuid/.test(name)) continue;
    yield { name, device: recordedPass(loadStream(name)).state.slice() };
  }
}

Deno.test("the run state of every recorded VM is told, and of nothing else", () => {
  let told = 0;
  for (const { name, device } of recordedVms()) {
    assert.equal(runStateOf(device), "running", name);
    assert.equal(runStateOf(device.slice(0, 100)), undefined);
    told++;
  }
  assert.ok(told > 5);
});

/** Device state as it is when its VM was paused: `u32` size, and the word in the buffer. */
function paused(device: Uint8Array): { device: Uint8Array; footer: number } {
  const text = new TextDecoder("latin1").decode(device);
  const fields = text.indexOf("\x0bglobalstate") + 12 + 8;
  const changed = device.slice();
  new DataView(changed.buffer).setUint32(fields, 7);
  changed.fill(0, fields + 4, fields + 4 + 32);
  changed.set(new TextEncoder().encode("paused"), fields + 4);
  return { device: changed, footer: fields + 104 };
}

Deno.test("asRunning changes what a paused VM notes of itself, and nothing else", () => {
  let changed = 0;
  for (const { name, device } of recordedVms()) {
    assert.equal(asRunning(device), device, name);
    const { device: still, footer } = paused(device);
    const before = still.slice();
    assert.equal(runStateOf(still), "paused", name);
    assert.deepEqual(asRunning(still), device, name);
    assert.deepEqual(still, before, `${name}: what was given is not changed`);
    // Not where header and footer do not agree, nor where the footer is cut off.
    still[footer + 4] ^= 1;
    assert.equal(asRunning(still), still, name);
    const cut = before.subarray(0, footer + 4);
    assert.equal(asRunning(cut), cut, name);
    changed++;
  }
  assert.ok(changed > 5);
});

Deno.test("asRunning takes any bytes", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
    assert.equal(asRunning(bytes), bytes);
    assert.equal(runStateOf(bytes), undefined);
    const name = new TextEncoder().encode("\x0bglobalstate");
    const named = Uint8Array.from([4, 0, 0, 0, 9, ...name, ...bytes]);
    assert.equal(asRunning(named), named);
  }));
});
