import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../errors.ts";
import { decodeXbzrle, encodeXbzrle } from "./xbzrle.ts";

/** Encodes as QEMU does: runs of equal bytes and of new ones, a trailing equal run left out. */
function encode(old: Uint8Array, fresh: Uint8Array): Uint8Array {
  const out: number[] = [];
  const length = (value: number) => value < 0x80 ? [value] : [0x80 | value & 0x7f, value >> 7];
  for (let at = 0; at < fresh.length;) {
    let equal = at;
    while (equal < fresh.length && old[equal] === fresh[equal]) equal++;
    if (equal === fresh.length) break;
    let end = equal;
    while (end < fresh.length && old[end] !== fresh[end]) end++;
    out.push(...length(equal - at), ...length(end - equal), ...fresh.subarray(equal, end));
    at = end;
  }
  return Uint8Array.from(out);
}

Deno.test("a difference applied to the old page gives the new one", () => {
  const pages = fc.tuple(
    fc.uint8Array({ minLength: 4096, maxLength: 4096 }),
    fc.array(
      fc.tuple(fc.nat(4095), fc.uint8Array({ minLength: 1, maxLength: 300 })),
      { maxLength: 9 },
    ),
    fc.nat(50),
  );
  fc.assert(
    fc.property(pages, ([old, changes, at]) => {
      const fresh = old.slice();
      for (const [to, bytes] of changes) fresh.set(bytes.subarray(0, 4096 - to), to);
      const difference = encode(old, fresh);
      const source = new Uint8Array(at + difference.length + 3).fill(0xee);
      source.set(difference, at);
      const page = old.slice();
      decodeXbzrle(source, at, difference.length, page, 0);
      assert.deepEqual(page, fresh);
    }),
    { numRuns: 100, seed: 7 },
  );
});

const FAULTS: readonly (readonly [string, readonly number[], RegExp, number])[] = [
  ["a skip without a run", [5], /inside a length/, 1],
  ["half a length", [0x80], /inside a length/, 1],
  ["a length of three bytes", [0x80, 0x80, 1], /more than two bytes/, 2],
  ["a skip beyond the page", [0x81, 0x20, 1, 9], /skips to byte 4097/, 2],
  ["an empty run", [1, 0, 1, 1, 9], /empty run/, 2],
  ["a run beyond the difference", [0, 3, 1, 2], /inside a run/, 2],
  ["a run beyond the page", [0xff, 0x1f, 2, 1, 2], /writes to byte 4097/, 3],
];

for (const [of, bytes, message, at] of FAULTS) {
  Deno.test(`XBZRLE with ${of} is refused`, () => {
    const source = Uint8Array.from(bytes);
    assert.throws(
      () => decodeXbzrle(source, 0, source.length, new Uint8Array(4096), 500),
      (error) => {
        assert.ok(error instanceof WireError);
        assert.match(error.message, message);
        assert.deepEqual([error.fault, error.offset], ["bad-length", 500 + at]);
        return true;
      },
    );
  });
}

Deno.test("any bytes decode within the page or are refused", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), (source) => {
      const page = new Uint8Array(1024);
      try {
        decodeXbzrle(source, 0, source.length, page, 0);
      } catch (error) {
        assert.ok(error instanceof WireError);
      }
      assert.equal(page.length, 1024);
    }),
    { numRuns: 500, seed: 8 },
  );
});

Deno.test("what is encoded decodes to the new page, at any place, and the old one becomes it", () => {
  const bytes = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 300 }),
    // Zeros of either sign, and what no double equals.
    fc.array(fc.constantFrom(0, 0x80, 0x7f, 0xf0, 0xff), { minLength: 1, maxLength: 40 })
      .map((list) => Uint8Array.from(list)),
  );
  const change = fc.tuple(fc.nat(4095), bytes);
  fc.assert(
    fc.property(
      fc.array(change, { maxLength: 9 }),
      fc.nat(7),
      fc.constantFrom(0, 2, 6),
      fc.oneof(fc.constant(4096), fc.nat(2000)),
      (changes, at, wordAt, limit) => {
        // Zeros, something, and words that are no numbers.
        const old = new Uint8Array(4096).map((_, i) =>
          i < 2000 ? 0 : i < 3000 ? (i * i) >> 7 : 0xff
        );
        const fresh = old.slice();
        for (const [to, bytes] of changes) fresh.set(bytes.subarray(0, 4096 - to), to);
        const source = new Uint8Array(at + 4096);
        source.set(fresh, at);
        const words = new Uint32Array(wordAt + 1024);
        new Uint8Array(words.buffer).set(old, 4 * wordAt);
        const out = new Uint8Array(4096).fill(0xee);
        const view = new DataView(source.buffer);
        const pairs = new Float64Array(words.buffer);
        const length = encodeXbzrle(view, at, words, pairs, wordAt, 4096, out, limit);
        assert.deepEqual(new Uint8Array(words.buffer, 4 * wordAt), fresh, "the old is the new");
        assert.ok(out.subarray(Math.max(0, length)).every((byte) => byte === 0xee) || length < 0);
        if (length < 0) return;
        assert.ok(length <= limit);
        assert.equal(length === 0, old.every((byte, i) => byte === fresh[i]));
        const page = old.slice();
        decodeXbzrle(out, 0, length, page, 0);
        assert.deepEqual(page, fresh);
        // A byte that did not change may stand between two runs, never at their ends.
        assert.ok(length <= encode(old, fresh).length + 4 * changes.length * 2 + 300);
      },
    ),
    { numRuns: 400, seed: 6 },
  );
});

Deno.test("a page that differs everywhere, and one at its last byte only, are encoded", () => {
  const out = new Uint8Array(4096);
  const old = new Uint32Array(1024);
  const pairs = new Float64Array(old.buffer);
  const fresh = new Uint8Array(4096).fill(7);
  const view = new DataView(fresh.buffer);
  assert.equal(encodeXbzrle(view, 0, old, pairs, 0, 4096, out, 3000), -1);
  assert.ok(old.every((word) => word === 0x07070707));
  fresh[4095] = 8;
  const length = encodeXbzrle(view, 0, old, pairs, 0, 4096, out, 4096);
  assert.deepEqual([...out.subarray(0, length)], [0xff, 0x1f, 1, 8]);
});

Deno.test("a zero that only changes its sign has changed", () => {
  const out = new Uint8Array(4096);
  for (let at = 0; at < 4096; at++) {
    const old = new Uint32Array(1024);
    const fresh = new Uint8Array(4096);
    fresh[at] = 0x80;
    const pairs = new Float64Array(old.buffer);
    const length = encodeXbzrle(new DataView(fresh.buffer), 0, old, pairs, 0, 4096, out, 100);
    assert.deepEqual([...out.subarray(length - 2, length)], [1, 0x80], `byte ${at}`);
    assert.deepEqual(new Uint8Array(old.buffer), fresh);
  }
});
