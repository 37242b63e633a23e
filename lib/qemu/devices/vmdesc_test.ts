import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { type KemariError, WireError } from "../../errors.ts";
import { recordedPass } from "../testing/recorded_state.ts";
import { parseVmdesc } from "./vmdesc.ts";

const encoder = new TextEncoder();

function parse(value: unknown, offset = 100) {
  return parseVmdesc(encoder.encode(JSON.stringify(value)), offset);
}

function description(...fields: unknown[]): unknown {
  return {
    page_size: 4096,
    devices: [{ name: "d", instance_id: 0, vmsd_name: "d", version: 1, fields }],
  };
}

const DESCRIBED = listStreams().filter((each) => !/no-vmdesc|shared-ram/.test(each.name));

Deno.test("parseVmdesc reads every recorded QEMU's description", () => {
  for (const { name } of DESCRIBED) {
    const { json, jsonOffset } = recordedPass(loadStream(name));
    const vmdesc = parseVmdesc(json, jsonOffset);
    assert.equal(vmdesc.pageSizeBytes, 4096, name);
    const names = vmdesc.devices.map((device) => device.name);
    assert.ok(names.includes("cpu") && names.includes("apic"), name);
    assert.equal(names.at(-1), "globalstate", name);
    assert.equal(vmdesc.configuration !== undefined, !name.includes("7.2"), name);
  }
});

Deno.test("parseVmdesc adds up arrays, structs, inline structs, subsections and legacy buffers", () => {
  const vmdesc = parse({
    page_size: 4096,
    devices: [
      {
        name: "one",
        instance_id: 3,
        vmsd_name: "one",
        version: 2,
        fields: [
          { name: "a", array_len: 5, type: "uint32", size: 4 },
          {
            name: "s",
            type: "struct",
            index: 1,
            size: 11,
            struct: {
              vmsd_name: "s",
              version: 1,
              fields: [{ name: "x", type: "uint8", size: 1 }],
              subsections: [{
                vmsd_name: "s/q",
                version: 1,
                fields: [{ name: "y", type: "uint8", size: 1 }],
              }],
            },
          },
          {
            name: "t",
            type: "tmp",
            vmsd_name: "t",
            version: 1,
            fields: [{ name: "m", type: "uint64", size: 8 }],
            size: 8,
          },
        ],
      },
      { name: "old", instance_id: 0, size: 7, fields: [{ name: "data", size: 7, type: "buffer" }] },
    ],
  });
  const [one, old] = vmdesc.devices;
  assert.equal(one.struct.sizeBytes, 5 * 4 + 11 + 8);
  assert.equal(one.struct.hasSubsections, true);
  assert.equal(one.struct.fields[1].index, 1);
  assert.equal(one.struct.fields[2].struct?.fields[0].name, "m");
  assert.equal(old.struct.sizeBytes, 7);
  assert.equal(old.struct.hasSubsections, false);
});

Deno.test("parseVmdesc trusts a measured size over an inferred array, and over a list's last item", () => {
  const inner = {
    vmsd_name: "s",
    version: 1,
    fields: [{ name: "v", array_len: 3, type: "uint8", size: 1 }],
  };
  const [field, list, nothing] = parse(description(
    { name: "s", type: "struct", size: 5, struct: inner },
    { name: "q", type: "QTAILQ", size: 9, vmsd_name: "q", version: 1, fields: [] },
    { name: "n", type: "struct", size: 1, struct: {} },
  )).devices[0].struct.fields;
  assert.equal(field.struct, undefined);
  assert.equal(list.struct, undefined);
  assert.equal(nothing.struct, undefined);
  assert.equal(field.elementBytes + list.elementBytes + nothing.elementBytes, 15);
});

Deno.test("parseVmdesc refuses what is no description", async (t) => {
  const deep = (depth: number): unknown =>
    depth === 0
      ? { vmsd_name: "x", fields: [] }
      : { fields: [{ name: "x", type: "struct", size: 0, struct: deep(depth - 1) }] };
  const u8 = { name: "x", type: "uint8", size: 1 };
  const device = { name: "d", instance_id: 0, vmsd_name: "d", version: 1, fields: [u8] };
  const cases: [string, unknown, WireError["fault"], RegExp][] = [
    ["no object", [], "bad-value", /not an object/],
    ["no devices", { page_size: 4096 }, "bad-value", /no list "devices"/],
    ["no page size", { devices: [] }, "bad-value", /"page_size"/],
    ["odd page size", { page_size: 4095, devices: [] }, "bad-value", /4095/],
    ["a device without name", { page_size: 4096, devices: [{}] }, "bad-value", /"name"/],
    ["a device twice", { page_size: 4096, devices: [device, device] }, "bad-value", /twice/],
    ["a negative size", description({ ...u8, size: -1 }), "bad-value", /"d\/x".*-1/],
    ["a fractional size", description({ ...u8, size: 1.5 }), "bad-value", /"size"/],
    ["a field without type", description({ name: "x", size: 1 }), "bad-value", /"type"/],
    ["2^60 bytes", description({ ...u8, size: 2 ** 30, array_len: 2 ** 30 }), "too-large", /"d"/],
    [
      "a struct that lies",
      description({ name: "s", type: "struct", size: 2, struct: { fields: [u8] } }),
      "bad-length",
      /"d\/s" claims 2 bytes, but its fields have 1/,
    ],
    [
      "endless nesting",
      description({ ...(deep(40) as { fields: object[] }).fields[0] }),
      "too-large",
      /deeper/,
    ],
    [
      "a subsection without name",
      { page_size: 4096, devices: [{ ...device, subsections: [{ fields: [] }] }] },
      "bad-value",
      /subsection/,
    ],
  ];
  for (const [name, value, fault, message] of cases) {
    await t.step(name, () => {
      assert.throws(() => parse(value), (error: KemariError) => {
        assert.ok(error instanceof WireError);
        assert.deepEqual([error.protocol, error.offset, error.fault], ["vmdesc", 100, fault]);
        assert.match(error.message, message);
        return true;
      });
    });
  }
});

Deno.test("parseVmdesc refuses bytes that are no JSON or no UTF-8", () => {
  for (const bytes of [[], [0x7b], [0x22, 0xff, 0x22]]) {
    assert.throws(() => parseVmdesc(new Uint8Array(bytes), 0), /not valid JSON/);
  }
});

Deno.test("parseVmdesc throws nothing but WireError on mutated descriptions", () => {
  const { json } = recordedPass(loadStream("plain-11.1-bios"));
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(json.length - 1), fc.integer({ min: 0x20, max: 0x7e })), {
        minLength: 1,
        maxLength: 4,
      }),
      (changes) => {
        const mutated = json.slice();
        for (const [at, byte] of changes) mutated[at] = byte;
        try {
          parseVmdesc(mutated, 0);
        } catch (error) {
          assert.ok(error instanceof WireError, String(error));
        }
      },
    ),
    { numRuns: 100, seed: 2010 },
  );
});
