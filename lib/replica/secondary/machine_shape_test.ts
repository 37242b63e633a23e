import assert from "node:assert/strict";
import {
  compareShapes,
  describeChange,
  judgeShape,
  type MachineShape,
  ShapeReader,
  type ShapeVerdict,
} from "./machine_shape.ts";

const RAM = { name: "pc.ram", lengthBytes: 1 << 26 };
const ROM = { name: "0000:00:05.0/e1000.rom", lengthBytes: 1 << 18 };
const TIMER = { name: "timer", instance: 0, version: 2 };
const CPU = { name: "cpu", instance: 1, version: 12 };
const RNG = { name: "0000:00:04.0/virtio-rng", instance: 0, version: 1 };

const BASE: MachineShape = { machine: "pc", blocks: [RAM], sections: [TIMER, CPU] };

function like(changes: Partial<MachineShape>): MachineShape {
  return { ...BASE, ...changes };
}

Deno.test("how two shapes differ is said by QEMU's own names", () => {
  const cases: readonly [MachineShape, MachineShape, string | undefined][] = [
    [BASE, BASE, undefined],
    [BASE, like({}), undefined],
    [BASE, like({ sections: [CPU, TIMER] }), undefined],
    [BASE, like({ sections: [TIMER, CPU, RNG] }), "0000:00:04.0/virtio-rng has come"],
    [BASE, like({ sections: [TIMER] }), "cpu 1 has gone"],
    [
      BASE,
      like({ blocks: [RAM, ROM], sections: [TIMER, CPU, RNG] }),
      "RAM 0000:00:05.0/e1000.rom, 0000:00:04.0/virtio-rng have come",
    ],
    [
      BASE,
      like({ sections: [{ ...TIMER, version: 3 }, CPU] }),
      "timer (version 2, now version 3) has changed",
    ],
    [
      BASE,
      like({ blocks: [{ ...RAM, lengthBytes: 1 }] }),
      "RAM pc.ram (67108864 bytes, now 1 bytes) has changed",
    ],
    [BASE, like({ machine: "q35" }), "machine (pc, now q35) has changed"],
    [
      BASE,
      like({ sections: [RNG, { ...CPU, instance: 2 }] }),
      "0000:00:04.0/virtio-rng, cpu 2 have come; timer, cpu 1 have gone",
    ],
  ];
  for (const [before, now, said] of cases) {
    const change = compareShapes(before, now);
    assert.equal(change === undefined ? undefined : describeChange(change), said);
  }
});

Deno.test("many devices are not all named", () => {
  const sections = Array.from({ length: 12 }, (_, i) => ({ ...CPU, name: `d${i}`, instance: 0 }));
  const change = compareShapes(like({ sections: [] }), like({ sections }))!;
  assert.equal(describeChange(change), "d0, d1, d2, d3, d4, d5, d6, d7 and 4 more have come");
});

Deno.test("a shape that nobody has loaded is rehearsed, or warned of where nobody can", () => {
  const other = like({ sections: [TIMER, CPU, RNG] });
  const cases: readonly [MachineShape | undefined, MachineShape, boolean, ShapeVerdict["kind"]][] =
    [
      // What is known to load, what has come, whether a standby can try it.
      [undefined, BASE, true, "rehearse"],
      [undefined, BASE, false, "commit"],
      [BASE, like({}), true, "commit"],
      [BASE, like({}), false, "commit"],
      [BASE, other, true, "rehearse"],
      [BASE, other, false, "warn"],
      [other, BASE, true, "rehearse"],
      [other, BASE, false, "warn"],
    ];
  for (const [loads, staged, canRehearse, kind] of cases) {
    assert.equal(judgeShape(loads, staged, canRehearse).kind, kind);
  }
});

Deno.test("the shape of one transaction after another is one object as long as it is the same", () => {
  const reader = new ShapeReader();
  const full = (last: MachineShape | undefined, machine: string, sections = BASE.sections) => {
    reader.begin(last, true);
    if (machine !== "") reader.machine = machine;
    reader.sections = sections;
    return reader.read([RAM]);
  };
  const first = full(undefined, "pc");
  assert.deepEqual(first, BASE);
  assert.equal(full(first, "pc", [...BASE.sections]), first, "told apart anew, and the same");
  assert.equal(full(first, "").machine, "unnamed");
  const checkpoint = (last: MachineShape, sections: MachineShape["sections"] | undefined) => {
    reader.begin(last, false);
    reader.sections = sections;
    const shape = reader.read([RAM]);
    assert.equal(reader.read([RAM]), shape, "asked twice");
    return shape;
  };
  assert.equal(checkpoint(first, undefined), first, "not told apart");
  const again = [...BASE.sections];
  for (let i = 0; i < 3; i++) assert.equal(checkpoint(first, again), first);
  const fewer = checkpoint(first, [TIMER]);
  assert.deepEqual(fewer, like({ sections: [TIMER] }));
  assert.deepEqual(checkpoint(fewer, again), BASE, "what was the last one's is not this one's");
});
