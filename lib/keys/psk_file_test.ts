import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { TransportError } from "../errors.ts";
import { formatPsk, isIdentity, parsePskFile } from "./psk_file.ts";

const KEY = "00112233445566778899aabbccddeeff";

Deno.test("a key file is read in its order, with comments and empty lines passed over", () => {
  const text = `# made by psktool\n\nqemu:${KEY}\r\nhost b:${KEY.toUpperCase()}${KEY}\n`;
  const keys = parsePskFile(text, "k");
  assert.deepEqual(keys.map(({ identity }) => identity), ["qemu", "host b"]);
  assert.deepEqual([...keys[0].key].slice(0, 3), [0, 0x11, 0x22]);
  assert.equal(keys[1].key.length, 32);
});

Deno.test("what is written is read again, whatever the key", () => {
  for (let length = 16; length <= 256; length += 15) {
    const one = { identity: `id-${length}`, key: new Uint8Array(randomBytes(length)) };
    assert.deepEqual(parsePskFile(formatPsk(one), "k"), [one]);
  }
});

const BAD: readonly (readonly [string, string, RegExp])[] = [
  ["an empty file", "", /k: it holds no key/],
  ["only comments", "# a\n\n", /k: it holds no key/],
  ["no colon", KEY, /line 1: no identity/],
  ["no identity", `:${KEY}`, /line 1: no identity/],
  ["a colon in the identity", `a:b:${KEY}`, /line 1: no identity/],
  ["a control character in the identity", `a\x07:${KEY}`, /line 1: no identity/],
  ["an identity that is too long", `${"ä".repeat(65)}:${KEY}`, /line 1: no identity/],
  ["no key", "\na:", /line 2: the key is not in hexadecimal/],
  ["half a byte", `a:${KEY}0`, /line 1: the key is not in hexadecimal/],
  ["other letters", `a:${KEY}xx`, /line 1: the key is not in hexadecimal/],
  ["a key that is too short", `a:${KEY.slice(2)}`, /a key of 15 bytes/],
  ["a key that is too long", `a:${KEY.repeat(17)}`, /a key of 272 bytes/],
  ["an identity twice", `a:${KEY}\nb:${KEY}\na:${KEY}00`, /line 3: a second key for "a"/],
  ["a PEM file", "-----BEGIN CERTIFICATE-----\nMIIB\n", /line 1: no identity/],
];

for (const [name, text, wanted] of BAD) {
  Deno.test(`a key file with ${name} is refused, and no key is shown`, () => {
    assert.throws(() => parsePskFile(text, "k"), (error) => {
      assert.ok(error instanceof TransportError);
      assert.match(error.message, wanted);
      assert.doesNotMatch(error.message, /[0-9a-f]{8}/i);
      return true;
    });
  });
}

Deno.test("a key file of anything is read or refused, and ends in no other way", () => {
  let seed = 7;
  const next = () => seed = Math.imul(seed, 1103515245) + 12345 >>> 0;
  const alphabet = [..."ab:#\n \r\x000f9", KEY];
  for (let i = 0; i < 2000; i++) {
    let text = "";
    for (let j = next() % 40; j > 0; j--) text += alphabet[(next() >>> 8) % alphabet.length];
    try {
      assert.ok(parsePskFile(text, "k").every(({ identity }) => isIdentity(identity)));
    } catch (error) {
      assert.ok(error instanceof TransportError, `${JSON.stringify(text)}: ${error}`);
    }
  }
});
