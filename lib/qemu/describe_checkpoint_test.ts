import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../fixtures/streams.ts";
import { describeCheckpoint } from "./describe_checkpoint.ts";
import { walkDeviceState } from "./device_state.ts";
import { recordedCheckpoints, recordedPass } from "./recorded_state.ts";
import { parseVmdesc } from "./vmdesc.ts";

const text = new TextEncoder();
const JSON_OF_TWO = text.encode(JSON.stringify({
  page_size: 4096,
  devices: [
    {
      name: "a",
      instance_id: 0,
      vmsd_name: "a",
      version: 1,
      fields: [{ name: "n", type: "uint32", size: 4 }],
      subsections: [{
        vmsd_name: "a/sub",
        version: 1,
        fields: [{ name: "on", type: "bool", size: 1 }],
      }],
    },
    { name: "b", instance_id: 1, fields: [{ name: "kept", type: "buffer", size: 2 }] },
  ],
}));
const A_FIELDS = [1, 2, 3, 4];
const A_SUBSECTION = [5, 5, ...text.encode("a/sub"), 0, 0, 0, 1, 1];

function section(id: number, name: string, instance: number, payload: readonly number[]): number[] {
  return [
    ...[4, 0, 0, 0, id, name.length, ...text.encode(name), 0, 0, 0, instance, 0, 0, 0, 3],
    ...[...payload, 0x7e, 0, 0, 0, id],
  ];
}

/** Names and fields of what a description makes of a state. */
function read(json: Uint8Array, state: Uint8Array) {
  return walkDeviceState(state, parseVmdesc(json, 0), 0).map((each) => ({
    name: each.name,
    instance: each.instance,
    fields: [...each.fields()].map(({ name, sizeBytes }) => `${name} ${sizeBytes}`),
  }));
}

Deno.test("a description that fits is kept as it is, byte for byte", () => {
  const state = Uint8Array.from([
    ...section(1, "a", 0, [...A_FIELDS, ...A_SUBSECTION]),
    ...section(2, "b", 1, [8, 9]),
    0,
  ]);
  assert.equal(describeCheckpoint(JSON_OF_TWO, state), JSON_OF_TWO);
});

Deno.test("a section of another shape is described as a buffer, the others as before", () => {
  const command = [8, 0, 2, 0, 1, 0xff];
  const cases: [string, number[], string[]][] = [
    ["a subsection has gone", A_FIELDS, ["state 4"]],
    ["another one has come", [...A_FIELDS, ...A_SUBSECTION, ...A_SUBSECTION], ["state 28"]],
    ["a queue has grown", [...A_FIELDS, 0x7e, 0, 0, 0, 1, ...A_SUBSECTION], ["state 21"]],
    ["nothing is left", [], []],
  ];
  for (const [what, payload, fields] of cases) {
    const state = Uint8Array.from([
      ...[...section(1, "a", 0, payload), ...command],
      ...[...section(2, "b", 1, [8, 9]), 0],
    ]);
    const [a, b] = read(describeCheckpoint(JSON_OF_TWO, state), state);
    assert.deepEqual([a.name, a.instance], ["a", 0], what);
    assert.deepEqual(a.fields.filter((field) => !field.endsWith(" 0")), fields, what);
    assert.deepEqual(b, { name: "b", instance: 1, fields: ["kept 2"] }, what);
  }
});

Deno.test("sections that have come or gone since are described too", () => {
  const state = Uint8Array.from([
    ...section(2, "b", 1, [8, 9]),
    ...section(3, "new", 7, [1]),
    0,
  ]);
  assert.deepEqual(read(describeCheckpoint(JSON_OF_TWO, state), state), [
    { name: "b", instance: 1, fields: ["kept 2"] },
    { name: "new", instance: 7, fields: ["state 1"] },
  ]);
});

Deno.test("every recorded checkpoint is described, by the description of any recorded state", () => {
  const described = listStreams().filter(({ name }) =>
    !/no-vmdesc|shared-ram|dirty-bitmap|uuid/.test(name)
  ).map(({ name }) => recordedPass(loadStream(name)).json);
  let anew = 0;
  for (const { name } of listStreams().filter((each) => each.kind === "colo")) {
    const stream = loadStream(name);
    const own = recordedPass(stream).json;
    const state = recordedCheckpoints(stream).at(-1)?.state;
    if (state === undefined) continue;
    const names = read(describeCheckpoint(own, state), state).map((each) => each.name);
    assert.ok(names.length > 5);
    for (const json of described) {
      const fitting = describeCheckpoint(json, state);
      assert.deepEqual(read(fitting, state).map((each) => each.name), names, name);
      if (fitting !== json) anew++;
    }
  }
  assert.ok(anew > 10, `${anew} descriptions were made anew`);
});

Deno.test("what is no description, or no device state, is given back as it was", () => {
  const whole = Uint8Array.from([...section(2, "b", 1, [8, 9]), 0]);
  assert.equal(describeCheckpoint(text.encode("{}"), whole).length, 2);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
    assert.equal(describeCheckpoint(noise, whole), noise);
    assert.equal(describeCheckpoint(JSON_OF_TWO, noise), JSON_OF_TWO);
  }));
});
