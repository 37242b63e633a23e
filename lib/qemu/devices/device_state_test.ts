import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { type KemariError, WireError, type WireFault } from "../../errors.ts";
import { walkDeviceState } from "./device_state.ts";
import type { DeviceField } from "./device_fields.ts";
import { recordedPass } from "../testing/recorded_state.ts";
import { parseVmdesc } from "./vmdesc.ts";

const DESCRIBED = listStreams().filter((each) =>
  !/no-vmdesc|shared-ram|dirty-bitmap|uuid/.test(each.name)
);

/** A device with a nested subsection: 4 bytes `a`, 2 bytes `b`, subsection "d/q" with 1 byte. */
const VMDESC = parseVmdesc(
  new TextEncoder().encode(JSON.stringify({
    page_size: 4096,
    devices: [
      {
        name: "d",
        instance_id: 1,
        vmsd_name: "d",
        version: 2,
        fields: [
          { name: "a", type: "int32 le", size: 4 },
          { name: "b", type: "uint8", array_len: 2, size: 1 },
        ],
        subsections: [{
          vmsd_name: "d/q",
          version: 1,
          fields: [{ name: "on", type: "bool", size: 1 }],
        }],
      },
      { name: "old", instance_id: 0, size: 3, fields: [{ name: "data", size: 3, type: "buffer" }] },
    ],
  })),
  0,
);

const D_SECTION = [
  ...[0x04, 0, 0, 0, 9, 1, 0x64, 0, 0, 0, 1, 0, 0, 0, 2],
  ...[0xff, 0xff, 0xff, 0xfe, 0xab, 0xcd],
  ...[0x05, 3, 0x64, 0x2f, 0x71, 0, 0, 0, 1, 1],
  ...[0x7e, 0, 0, 0, 9],
];
const OLD_SECTION = [
  ...[0x04, 0, 0, 0, 10, 3, 0x6f, 0x6c, 0x64, 0, 0, 0, 0, 0, 0, 0, 1],
  ...[1, 2, 3],
  ...[0x7e, 0, 0, 0, 10],
];
const PING = [0x08, 0, 2, 0, 4, 1, 2, 3, 4];
const STATE = [...D_SECTION, ...PING, ...OLD_SECTION, 0];

function walk(bytes: readonly number[]) {
  return walkDeviceState(new Uint8Array(bytes), VMDESC, 1000);
}

function expectFault(bytes: readonly number[], at: number, fault: WireFault, message: RegExp) {
  assert.throws(() => walk(bytes), (error: KemariError) => {
    assert.ok(error instanceof WireError, String(error));
    assert.match(error.message, message);
    assert.deepEqual([error.fault, error.offset], [fault, 1000 + at]);
    return true;
  });
}

Deno.test("walkDeviceState accounts for every byte of every recorded state", () => {
  for (const { name } of DESCRIBED) {
    const pass = recordedPass(loadStream(name));
    const vmdesc = parseVmdesc(pass.json, pass.jsonOffset);
    const sections = walkDeviceState(pass.state, vmdesc, pass.offset);
    assert.deepEqual(
      sections.map((section) => section.name),
      vmdesc.devices.map((device) => device.name),
      name,
    );
    let next = pass.offset;
    for (const section of sections) {
      assert.equal(section.offset, next, name);
      next += section.sizeBytes;
    }
    assert.equal(next, pass.offset + pass.state.length - 1, name);
  }
});

Deno.test("fields() covers a section's payload without gap or overlap, at every level", () => {
  const pass = recordedPass(loadStream("plain-11.1-q35"));
  const vmdesc = parseVmdesc(pass.json, pass.jsonOffset);
  const checkRun = (fields: Iterable<DeviceField>, start: number): number => {
    for (const field of fields) {
      assert.equal(field.offset, start, field.name);
      const { value } = field;
      if (typeof value === "object" && value !== null && "kind" in value) {
        if (value.kind === "struct" && value.fields.length > 0) {
          const end = checkRun(value.fields, value.fields[0].offset);
          assert.equal(end, field.offset + field.sizeBytes, field.name);
        } else if (value.kind === "bytes") {
          assert.equal(value.lengthBytes, field.sizeBytes, field.name);
        }
      }
      start += field.sizeBytes;
    }
    return start;
  };
  for (const section of walkDeviceState(pass.state, vmdesc, pass.offset)) {
    const payload = section.offset + 14 + section.name.length;
    assert.equal(checkRun(section.fields(), payload), section.offset + section.sizeBytes - 5);
  }
});

Deno.test("fields() decodes values that a running machine must have", () => {
  const pass = recordedPass(loadStream("plain-11.1-bios"));
  const sections = walkDeviceState(
    pass.state,
    parseVmdesc(pass.json, pass.jsonOffset),
    pass.offset,
  );
  const values = (device: string) => {
    const section = sections.find((each) => each.name === device);
    assert.ok(section, device);
    return new Map([...section.fields()].map((field) => [field.name, field.value]));
  };
  assert.equal(values("apic").get("apicbase"), 0xfee00900);
  const registers = values("cpu").get("env.regs");
  assert.ok(Array.isArray(registers) && registers.length >= 16);
  assert.equal(typeof registers[0], "bigint");
  const state = values("globalstate").get("runstate");
  assert.ok(typeof state === "object" && state !== null && "hex" in state);
  assert.match(state.hex, /^72756e6e696e6700/); // "running"
});

Deno.test("walkDeviceState splits a state with a COMMAND, a subsection and a legacy device", () => {
  const [device, old] = walk(STATE);
  assert.deepEqual(
    [device.name, device.instance, device.version, device.sectionId, device.offset],
    ["d", 1, 2, 9, 1000],
  );
  assert.equal(device.sizeBytes, D_SECTION.length);
  assert.equal(old.offset, 1000 + D_SECTION.length + PING.length);
  assert.deepEqual([...device.fields()], [
    { name: "a", type: "int32 le", offset: 1015, sizeBytes: 4, value: -2 },
    {
      name: "b",
      type: "uint8",
      offset: 1019,
      sizeBytes: 2,
      value: { kind: "bytes", hex: "abcd", lengthBytes: 2, shortened: false },
    },
    {
      name: "d/q",
      type: "subsection",
      offset: 1021,
      sizeBytes: 10,
      value: {
        kind: "struct",
        fields: [{ name: "on", type: "bool", offset: 1030, sizeBytes: 1, value: true }],
      },
    },
  ]);
});

Deno.test("walkDeviceState names the byte at which bytes and description part", async (t) => {
  const change = (at: number, byte: number) => STATE.with(at, byte);
  const insert = (at: number, ...bytes: number[]) => STATE.toSpliced(at, 0, ...bytes);
  const old = D_SECTION.length + PING.length;
  const cases: [string, number[], number, WireFault, RegExp][] = [
    ["nothing", [], 0, "truncated", /section should stand/],
    ["one byte too many in a payload", insert(19, 0), 21, "bad-length", /subsection "d\/q"/],
    ["one byte too many in the last field", insert(31, 0), 31, "bad-length", /footer/],
    ["one byte too few", STATE.toSpliced(19, 1), 21, "bad-length", /subsection/],
    ["another section's footer", change(35, 8), 32, "bad-value", /section id 8/],
    ["another subsection", change(25, 0x72), 21, "bad-length", /"d\/q" should begin here/],
    ["another subsection version", change(29, 7), 26, "bad-version", /version 7/],
    ["a section that nobody described", change(6, 0x65), 0, "unsupported", /"e" \(instance 1/],
    ["another instance", change(10, 3), 0, "unsupported", /instance 3/],
    ["an iterable section", change(0, 0x02), 0, "unsupported", /iterable/],
    ["a foreign type byte", change(0, 0x99), 0, "bad-value", /0x99/],
    ["a section without name", [0x04, 0, 0, 0, 1, 0, ...STATE], 5, "bad-value", /empty name/],
    ["a section twice", [...D_SECTION, ...STATE], D_SECTION.length, "unsupported", /device left/],
    ["a device that never came", [...D_SECTION, 0], D_SECTION.length, "bad-length", /"old" 0/],
    ["bytes after EOF", [...STATE, 0], STATE.length - 1, "bad-length", /1 bytes early/],
    [
      "a COMMAND longer than the state",
      change(D_SECTION.length + 3, 0xff),
      STATE.length,
      "truncated",
      /COMMAND/,
    ],
    ["a cut in a payload", STATE.slice(0, old + 18), old + 18, "truncated", /"old"/],
  ];
  for (const [name, bytes, at, fault, message] of cases) {
    await t.step(name, () => expectFault(bytes, at, fault, message));
  }
});

Deno.test("walkDeviceState refuses every truncated prefix", () => {
  for (let length = 0; length < STATE.length; length++) {
    assert.throws(() => walk(STATE.slice(0, length)), WireError, `${length} bytes`);
  }
});

Deno.test("walkDeviceState throws nothing but WireError on mutated states, or keeps every byte", () => {
  const pass = recordedPass(loadStream("plain-7.2-bios"));
  const vmdesc = parseVmdesc(pass.json, pass.jsonOffset);
  fc.assert(
    fc.property(fc.nat(pass.state.length - 1), fc.nat(255), (at, byte) => {
      const mutated = pass.state.slice();
      mutated[at] = byte;
      try {
        const sections = walkDeviceState(mutated, vmdesc, 0);
        const total = sections.reduce((sum, section) => sum + section.sizeBytes, 1);
        assert.equal(total, mutated.length);
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
        assert.ok(error.offset <= mutated.length);
      }
    }),
    { numRuns: 500, seed: 2010 },
  );
});
