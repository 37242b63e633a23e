import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { WireError } from "../../errors.ts";
import { describeBlindly } from "./describe_checkpoint.ts";
import { partitionDeviceState } from "./device_partition.ts";
import { walkDeviceState } from "./device_state.ts";
import { recordedCheckpoints, recordedPass } from "../testing/recorded_state.ts";
import { parseVmdesc } from "./vmdesc.ts";

function section(id: number, name: string, payload: readonly number[], instance = 0): number[] {
  const text = [...new TextEncoder().encode(name)];
  return [
    ...[0x04, 0, 0, 0, id, text.length, ...text, 0, 0, 0, instance, 0, 0, 0, 1],
    ...payload,
    ...[0x7e, 0, 0, 0, id],
  ];
}

function partition(bytes: readonly number[]): [string, number, number][] {
  return partitionDeviceState(new Uint8Array(bytes), 500).map(
    ({ name, start, sizeBytes }) => [name, start, sizeBytes],
  );
}

/** What stands in a payload and looks like a footer of section 1 with section "z" behind it. */
const LOOKALIKE = [0x7e, 0, 0, 0, 1, ...section(3, "z", []).slice(0, -5)];

Deno.test("every recorded device state is told apart as its description has it", () => {
  let compared = 0;
  for (const { name } of listStreams()) {
    if (/no-vmdesc|dirty-bitmap|shared|uuid/.test(name)) continue;
    const stream = loadStream(name);
    const { state, json, jsonOffset, offset } = recordedPass(stream);
    const known = walkDeviceState(state, parseVmdesc(json, jsonOffset), offset);
    const told = partitionDeviceState(state, offset);
    assert.deepEqual(
      told.map((each) => [each.name, each.instance, offset + each.start, each.sizeBytes]),
      known.map((each) => [each.name, each.instance, each.offset, each.sizeBytes]),
      name,
    );
    for (const each of recordedCheckpoints(stream)) {
      assert.equal(partitionDeviceState(each.state, each.offset).length, known.length, name);
    }
    compared++;
  }
  assert.ok(compared > 10);
});

Deno.test("what looks like a section's end in a payload is given up where it leads nowhere", () => {
  const bytes = [...section(1, "a", [...LOOKALIKE, 9, 9]), ...section(2, "b", []), 0];
  assert.deepEqual(partition(bytes), [["a", 0, 42], ["b", 42, 20]]);
});

Deno.test("commands may stand before, between and behind the sections", () => {
  const ping = [0x08, 0, 2, 0, 4, 1, 2, 3, 4];
  const bytes = [...ping, ...section(1, "a", [7]), ...ping, ...section(2, "b", []), 0];
  assert.deepEqual(partition(bytes), [["a", 9, 21], ["b", 39, 20]]);
});

Deno.test("device state that is no row of whole sections is refused, at its offset", async (t) => {
  const good = [...section(1, "a", [7]), ...section(2, "b", []), 0];
  const twice = [...section(1, "a", [7]), ...section(2, "a", []), 0];
  const open = [...section(1, "a", []), ...section(2, "b", []).with(-1, 7), 0];
  const cases: [string, number[], number, WireError["fault"], RegExp][] = [
    ["nothing", [], 0, "truncated", /no section ends where the state ends/],
    ["an EOF alone", [0], 1, "truncated", /no section ends/],
    ["no EOF", good.slice(0, -1), good.length - 1, "truncated", /no section ends/],
    ["bytes behind the EOF", [...good, 0], good.length + 1, "truncated", /no section ends/],
    ["a foreign first byte", good.with(0, 0x7d), 0, "bad-value", /a section was expected/],
    ["an iterable section", good.with(0, 0x02), 0, "unsupported", /iterable/],
    ["a footer of another section", open, 20, "truncated", /the section that begins here/],
    ["one device twice", twice, 21, "bad-value", /"a" \(instance 0, id 2\).*second time/],
  ];
  for (const [name, bytes, at, fault, message] of cases) {
    await t.step(name, () => {
      assert.throws(() => partition(bytes), (error) => {
        assert.ok(error instanceof WireError);
        assert.deepEqual([error.fault, error.offset], [fault, 500 + at]);
        assert.match(error.message, message);
        return true;
      });
    });
  }
});

Deno.test("a state cut anywhere is refused, but where it could end by what stands before", () => {
  const state = recordedPass(loadStream("plain-11.1-virtio")).state;
  for (let length = state.length - 1; length > state.length - 20_000; length--) {
    assert.throws(() => partitionDeviceState(state.subarray(0, length), 0), WireError);
  }
});

Deno.test("a state full of lookalikes is told, or given up, in time", () => {
  const payload = Array.from({ length: 3000 }, () => LOOKALIKE).flat();
  const bytes = [...section(1, "a", [...payload, 9]), 0];
  assert.deepEqual(partition(bytes), [["a", 0, bytes.length - 1]]);
  // Each of these may end at any of those behind it, and none of them leads to the end.
  const own = section(1, "a", []);
  const many = new Uint8Array(2000 * own.length + 12);
  for (let i = 0; i < 2000; i++) many.set(own, i * own.length);
  many.set(section(2, "b", []).slice(0, 6), 2000 * own.length);
  many.set([0x7e, 0, 0, 0, 9, 0], many.length - 6);
  assert.throws(() => partitionDeviceState(many, 0), /cannot be told apart/);
});

Deno.test("any bytes are told apart whole, or refused with WireError", () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(0, 1, 2, 4, 5, 8, 0x61, 0x7e), { maxLength: 80 }),
      (noise) => {
        const bytes = [...section(1, "a", noise), 0];
        try {
          const found = partition(bytes);
          assert.equal(found[0][0], "a");
          const [, start, sizeBytes] = found.at(-1)!;
          assert.ok(start + sizeBytes <= bytes.length - 1);
        } catch (error) {
          assert.ok(error instanceof WireError, String(error));
        }
      },
    ),
    { seed: 2010, numRuns: 500 },
  );
});

Deno.test("what nobody has described is described as one buffer for each section", () => {
  const state = recordedPass(loadStream("plain-11.1-virtio")).state;
  const vmdesc = parseVmdesc(describeBlindly(state, 4096)!, 0);
  const sections = walkDeviceState(state, vmdesc, 0);
  assert.ok(sections.length > 20);
  assert.deepEqual([...sections[0].fields()].map(({ name, type }) => [name, type]), [
    ["state", "buffer"],
  ]);
  assert.equal(describeBlindly(state.subarray(1), 4096), undefined);
});
