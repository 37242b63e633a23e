import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { WireError } from "../../errors.ts";
import { sketchDeviceState } from "./device_sketch.ts";
import { walkDeviceState } from "./device_state.ts";
import { recordedCheckpoints, recordedPass } from "../testing/recorded_state.ts";
import { parseVmdesc } from "./vmdesc.ts";

function section(id: number, name: string, payload: readonly number[]): number[] {
  const text = [...new TextEncoder().encode(name)];
  return [
    ...[0x04, 0, 0, 0, id, text.length, ...text, 0, 0, 0, 0, 0, 0, 0, 1],
    ...payload,
    ...[0x7e, 0, 0, 0, id],
  ];
}

function sketch(bytes: readonly number[], known: Parameters<typeof sketchDeviceState>[1] = []) {
  const { names, sections, isComplete } = sketchDeviceState(new Uint8Array(bytes), known, 500);
  const ends = sections.map(({ start, sizeBytes }) => start + sizeBytes);
  return { names, ends, isComplete };
}

Deno.test("sketchDeviceState finds every section of every recorded checkpoint", () => {
  for (const { name } of listStreams().filter((each) => each.kind === "colo")) {
    const stream = loadStream(name);
    const pass = recordedPass(stream);
    const known = walkDeviceState(
      pass.state,
      parseVmdesc(pass.json, pass.jsonOffset),
      pass.offset,
    );
    const names = known.map((each) => each.name);
    for (const { state, offset } of recordedCheckpoints(stream)) {
      for (const told of [known, []]) {
        const { sections, ...rest } = sketchDeviceState(state, told, offset);
        assert.deepEqual(rest, { names, isComplete: true });
        assert.deepEqual(sections.map((each) => each.name), names);
        const sizeBytes = sections.reduce((sum, each) => sum + each.sizeBytes, 0);
        assert.ok(sizeBytes <= state.length - 1 && sizeBytes > state.length * 0.9);
      }
    }
  }
});

Deno.test("sketchDeviceState follows a section that has grown since the first pass", () => {
  const known = [{ name: "a", instance: 0, sizeBytes: 21 }];
  const bytes = [...section(1, "a", [1, 2, 3, 4]), ...section(2, "b", []), 0];
  assert.deepEqual(sketch(bytes, known), { names: ["a", "b"], ends: [24, 44], isComplete: true });
});

Deno.test("sketchDeviceState is not misled by footers in a payload", () => {
  const lookalike = [0x7e, 0, 0, 0, 1, 0x99, 0x7e, 0, 0, 0, 1, 0x04, 0, 0, 0, 0, 0, 0];
  const bytes = [...section(1, "a", lookalike), 0x08, 0, 11, 0, 0, ...section(2, "b", []), 0];
  assert.deepEqual(sketch(bytes), { names: ["a", "b"], ends: [38, 63], isComplete: true });
});

Deno.test("sketchDeviceState refuses what is certainly wrong, at its offset", async (t) => {
  const good = [...section(1, "a", [7]), ...section(2, "b", []), 0];
  const cases: [string, number[], number, WireError["fault"]][] = [
    ["nothing", [], 0, "truncated"],
    ["an EOF alone", [0], 0, "truncated"],
    ["a foreign first byte", good.with(0, 0x7e), 0, "bad-value"],
    ["no EOF at the end", good.with(-1, 1), good.length - 1, "bad-value"],
    ["no footer at the end", good.with(-6, 0), good.length - 6, "bad-value"],
    ["a footer that closes nothing", good.with(-2, 77), good.length - 5, "bad-value"],
    ["a cut", good.slice(0, -3), good.length - 9, "bad-value"],
  ];
  for (const [name, bytes, at, fault] of cases) {
    await t.step(name, () => {
      assert.throws(() => sketch(bytes), (error) => {
        assert.ok(error instanceof WireError);
        assert.deepEqual([error.fault, error.offset], [fault, 500 + at]);
        return true;
      });
    });
  }
});

Deno.test("sketchDeviceState ends on any bytes, with WireError or an answer", () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(0, 1, 2, 4, 5, 8, 0x61, 0x7e), { maxLength: 80 }),
      (noise) => {
        const bytes = [...section(1, "a", noise), 0];
        try {
          const { names } = sketch(bytes);
          assert.equal(names[0], "a");
        } catch (error) {
          assert.ok(error instanceof WireError, String(error));
        }
      },
    ),
    { seed: 2010, numRuns: 500 },
  );
});
