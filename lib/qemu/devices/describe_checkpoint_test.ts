import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { describeCheckpoint } from "./describe_checkpoint.ts";
import { walkDeviceState } from "./device_state.ts";
import { recordedCheckpoints, recordedPass } from "../testing/recorded_state.ts";
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
    ["what looks like its end", [...A_FIELDS, 0x7e, 0, 0, 0, 1, 8, 9, 9, 9, 9, 9], ["state 15"]],
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
    const states = recordedCheckpoints(stream).map((each) => each.state);
    for (const state of states) {
      const names = read(describeCheckpoint(own, state), state).map((each) => each.name);
      assert.ok(names.length > 5);
      for (const json of state === states[0] ? described : [own]) {
        const fitting = describeCheckpoint(json, state);
        assert.deepEqual(read(fitting, state).map((each) => each.name), names, name);
        if (fitting !== json) anew++;
      }
    }
  }
  assert.ok(anew > 10, `${anew} descriptions were made anew`);
});

Deno.test("a damaged state or description gives one that fits, or is given back as it was", () => {
  const whole = Uint8Array.from([
    ...section(1, "a", 0, [...A_FIELDS, ...A_SUBSECTION, 1, 2, 3]),
    ...section(2, "b", 1, [8, 9]),
    0,
  ]);
  const damage = (bytes: Uint8Array) =>
    fc.tuple(fc.nat(bytes.length - 1), fc.nat(6), fc.uint8Array({ maxLength: 6 })).map(
      ([at, gone, come]) =>
        Uint8Array.from([...bytes.subarray(0, at), ...come, ...bytes.subarray(at + gone)]),
    );
  let described = 0;
  fc.assert(
    fc.property(damage(whole), fc.oneof(fc.constant(JSON_OF_TWO), damage(JSON_OF_TWO)), (
      state,
      json,
    ) => {
      const fitting = describeCheckpoint(json, state);
      if (fitting === json) return;
      assert.ok(read(fitting, state).length > 0);
      described++;
    }),
    { seed: 2010, numRuns: 2000 },
  );
  assert.ok(described > 100, `${described} were described`);
});

Deno.test("a description that JSON cannot write again costs nothing but itself", () => {
  const deep = "[".repeat(20_000) + "]".repeat(20_000);
  const json = new TextDecoder().decode(JSON_OF_TWO).replace("{", `{"7":1,"deep":${deep},`);
  const state = Uint8Array.from([
    ...section(1, "a", 0, A_FIELDS),
    ...section(2, "b", 1, [8, 9]),
    0,
  ]);
  const bytes = text.encode(json);
  assert.equal(describeCheckpoint(bytes, state), bytes);
});
