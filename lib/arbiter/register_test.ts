import assert from "node:assert/strict";
import { WireError, type WireFault } from "../errors.ts";
import {
  aloneAfter,
  ANY_INSTANCE,
  decodeRegister,
  encodeRegister,
  isEqual,
  isSameSide,
  isSideName,
  isVmName,
  protectedAfter,
  type Register,
} from "./register.ts";

const a = { name: "alpha", instance: "00000000000000a1" };
const b = { name: "beta.example", instance: "ffffffffffffffff" };
const ALONE: Register = { state: "alone", vm: "vm-1", generation: 1, side: a };
const PAIR = protectedAfter(ALONE, b);

const TEXTS: readonly (readonly [Register, string])[] = [
  [
    ALONE,
    '{"kemari":1,"vm":"vm-1","generation":1,"state":"alone","side":"alpha#00000000000000a1"}',
  ],
  [
    PAIR,
    '{"kemari":1,"vm":"vm-1","generation":2,"state":"protected",' +
    '"primary":"alpha#00000000000000a1","secondary":"beta.example#ffffffffffffffff"}',
  ],
];

Deno.test("a register is one line of text, and is read back", () => {
  for (const [register, text] of TEXTS) {
    assert.equal(encodeRegister(register), text);
    assert.deepEqual(decodeRegister(text), register);
  }
});

const BAD: readonly (readonly [string, string, WireFault])[] = [
  ["nothing", "", "bad-value"],
  ["no JSON", "vm=1", "bad-value"],
  ["another program's JSON", '{"leader":"x"}', "bad-value"],
  ["a number", "7", "bad-value"],
  ["null", "null", "bad-value"],
  ["a later format", TEXTS[0][1].replace('"kemari":1', '"kemari":2'), "bad-version"],
  ["a format that is none", TEXTS[0][1].replace('"kemari":1', '"kemari":"1"'), "bad-value"],
  ["generation 0", TEXTS[0][1].replace('"generation":1', '"generation":0'), "bad-value"],
  ["a half generation", TEXTS[0][1].replace('"generation":1', '"generation":1.5'), "bad-value"],
  ["generation 2^53", TEXTS[0][1].replace('n":1,', 'n":9007199254740992,'), "bad-value"],
  ["a generation in another spelling", TEXTS[0][1].replace('n":1,', 'n":1e0,'), "bad-value"],
  ["another state", TEXTS[0][1].replace("alone", "lonely"), "bad-value"],
  ["no side", TEXTS[0][1].replace("side", "host"), "bad-value"],
  ["a side without its instance", TEXTS[0][1].replace(/#[0-9a-f]+/, ""), "bad-value"],
  ["a side with a control character", TEXTS[0][1].replace("alpha", "al\\npha"), "bad-value"],
  ["one host twice", TEXTS[1][1].replace("beta.example", "alpha"), "bad-value"],
  ["a field too many", TEXTS[0][1].replace("}", ',"more":1}'), "bad-value"],
  ["spaces", TEXTS[0][1].replace(",", ", "), "bad-value"],
  ["a VM's name with a space", TEXTS[0][1].replace("vm-1", "vm 1"), "bad-value"],
  ["too much", TEXTS[0][1] + " ".repeat(1024), "too-large"],
];

for (const [of, text, fault] of BAD) {
  Deno.test(`a register is refused: ${of}`, () => {
    assert.throws(() => decodeRegister(text), (error) => {
      assert.ok(error instanceof WireError);
      assert.equal(error.fault, fault);
      assert.equal(error.party, "arbiter");
      return true;
    });
  });
}

Deno.test("every prefix of a register is refused", () => {
  for (const [, text] of TEXTS) {
    for (let i = 0; i < text.length; i++) {
      assert.throws(() => decodeRegister(text.slice(0, i)), WireError);
    }
  }
});

Deno.test("each change moves the generation on by one", () => {
  assert.equal(PAIR.generation, 2);
  assert.equal(aloneAfter(PAIR, b).generation, 3);
  assert.equal(isEqual(aloneAfter(ALONE, a), ALONE), false);
  assert.equal(isEqual(ALONE, { ...ALONE }), true);
  assert.equal(isEqual(undefined, undefined), true);
  assert.equal(isEqual(undefined, ALONE), false);
  assert.equal(isEqual(PAIR, { ...PAIR, secondary: { ...b, instance: a.instance } }), false);
});

Deno.test("a side is one process, unless an operator has named it", () => {
  assert.equal(isSameSide(a, { ...a }), true);
  assert.equal(isSameSide(a, { ...a, instance: b.instance }), false);
  assert.equal(isSameSide(a, { ...a, instance: ANY_INSTANCE }), true);
  assert.equal(isSameSide(a, { ...b, instance: ANY_INSTANCE }), false);
});

Deno.test("names of sides and VMs", () => {
  for (const name of ["a", "node-1.example", "A_b"]) assert.equal(isSideName(name), true, name);
  for (const name of ["", "-a", "a b", "a#b", "ä", "a".repeat(64)]) {
    assert.equal(isSideName(name), false, name);
  }
  assert.equal(isVmName("6f0f9b2e-5e0b-4c8e-9d5e-7a3f9a6f0b11"), true);
  for (const name of ["", "a b", "a\n", "é", "x".repeat(201)]) assert.equal(isVmName(name), false);
});
