import assert from "node:assert/strict";
import {
  type Admission,
  type AtHello,
  compareVms,
  describeVm,
  mayReplace,
  otherMachine,
  type StreamShape,
  type VmIdentity,
} from "./whose_replica.ts";

const digits = (digit: string) => digit.repeat(32);
const [U1, U2] = ["1", "2"].map(digits);
const [P1, P2] = ["3", "4"].map(digits);
const [S1, S2] = ["5", "6"].map(digits);

const COMPARISONS: [string, VmIdentity, VmIdentity, string][] = [
  ["the UUID decides", { uuid: U1, name: "a" }, { uuid: U1, name: "b" }, "same by uuid"],
  ["also against a name", { uuid: U1, name: "a" }, { uuid: U2, name: "a" }, "other by uuid"],
  ["also against a process", { uuid: U1, process: P1 }, { uuid: U2, process: P1 }, "other by uuid"],
  [
    "the name decides where one has no UUID",
    { uuid: U1, name: "a" },
    { name: "a" },
    "same by name",
  ],
  ["another name", { uuid: U1, name: "a" }, { name: "b", shape: S1 }, "other by name"],
  [
    "a name against a process",
    { name: "a", process: P1 },
    { name: "b", process: P1 },
    "other by name",
  ],
  [
    "unnamed, the same QEMU",
    { process: P1, shape: S1 },
    { process: P1, shape: S2 },
    "same by process",
  ],
  [
    "unnamed, another QEMU",
    { process: P1, shape: S1 },
    { process: P2, shape: S2 },
    "other by shape",
  ],
  [
    "unnamed and restarted",
    { process: P1, shape: S1 },
    { process: P2, shape: S1 },
    "unknown by shape",
  ],
  ["named, then unnamed", { name: "a", shape: S1 }, { shape: S2 }, "other by shape"],
  ["named, then unnamed, alike", { name: "a", shape: S1 }, { shape: S1 }, "unknown by shape"],
  ["nothing is known of one", { uuid: U1, name: "a", shape: S1 }, {}, "unknown by nothing"],
  ["nothing is known of either", {}, {}, "unknown by nothing"],
  ["a UUID here and a name there", { uuid: U1 }, { name: "a" }, "unknown by nothing"],
];

for (const [name, kept, coming, expected] of COMPARISONS) {
  Deno.test(`VMs are compared: ${name}`, () => {
    const { is, by } = compareVms(kept, coming);
    assert.equal(`${is} by ${by}`, expected);
    const back = compareVms(coming, kept);
    assert.equal(`${back.is} by ${back.by}`, expected, "the other way round");
  });
}

const A = { uuid: U1, name: "a" };
const B = { uuid: U2, name: "b" };
const C = { uuid: digits("7"), name: "c" };

const ADMISSIONS: [string, Partial<AtHello>, Admission["do"]][] = [
  ["nothing is kept", { hasReplica: false, kept: {}, coming: B }, "accept"],
  ["its own", { coming: A }, "accept"],
  ["another's", { coming: B }, "refuse"],
  ["an unnamed one", { coming: {} }, "accept-unknown"],
  ["of an earlier version", { kept: {}, coming: B }, "accept-unknown"],
  ["another's, asked for", { coming: B, replace: "unused" }, "replace"],
  ["its own, whatever is asked for", { coming: A, replace: "unused" }, "accept"],
  ["the same other one again", { coming: B, replace: B }, "replace"],
  ["a third", { coming: C, replace: B }, "refuse"],
  ["an unnamed one behind the other", { coming: {}, replace: B }, "accept-unknown"],
  ["its own behind the other that has committed nothing", { coming: A, replace: B }, "accept"],
];

for (const [name, known, expected] of ADMISSIONS) {
  Deno.test(`a sender is admitted or not: ${name}`, () => {
    const all: AtHello = { hasReplica: true, kept: A, coming: B, replace: "no", ...known };
    assert.equal(mayReplace(all).do, expected);
  });
}

Deno.test("a stream of an unknown VM is another's if its UUID, machine or RAM is", () => {
  const kept: StreamShape = { machine: "pc", blocks: [{ name: "ram", lengthBytes: 1 }] };
  const cases: [StreamShape, RegExp | undefined][] = [
    [kept, undefined],
    [{ ...kept, uuid: U1 }, undefined],
    [{ ...kept, machine: "q35" }, /machine, q35/],
    [{ ...kept, blocks: [] }, /RAM and devices/],
    [{ ...kept, blocks: [{ name: "ram", lengthBytes: 2 }] }, /RAM and devices/],
    [{ ...kept, blocks: [{ name: "rom", lengthBytes: 1 }] }, /RAM and devices/],
  ];
  for (const [coming, difference] of cases) {
    if (difference === undefined) assert.equal(otherMachine(kept, coming), undefined);
    else assert.match(otherMachine(kept, coming)!, difference);
  }
  const known = { ...kept, uuid: U1 };
  assert.match(otherMachine(known, { ...kept, uuid: U2 })!, /UUID/);
  // The same VM with more RAM.
  assert.equal(otherMachine(known, { ...known, blocks: [] }), undefined);
});

Deno.test("a VM is described by what names it", () => {
  const uuid = "0123456789abcdef0123456789abcdef";
  assert.equal(describeVm({ uuid, name: "a" }), "VM a (01234567-89ab-cdef-0123-456789abcdef)");
  assert.equal(describeVm({ name: "a", shape: S1 }), "VM a");
  assert.equal(describeVm({ uuid }), "VM 01234567-89ab-cdef-0123-456789abcdef");
  assert.equal(describeVm({ process: P1, shape: S1 }), "an unnamed VM (devices 55555555)");
  assert.equal(describeVm({}), "an unnamed VM");
});
