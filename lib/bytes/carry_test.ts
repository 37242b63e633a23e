import assert from "node:assert/strict";
import fc from "fast-check";
import { Carry } from "./carry.ts";

/** Records of `u8` n and n bytes; takes up to `most` of them at a call. */
function reader(most: number) {
  const records: string[] = [];
  const take = (bytes: Uint8Array, start: number, end: number): number => {
    let at = start;
    for (let i = 0; i < most && at < end && end - at > bytes[at]; i++) {
      records.push(bytes.slice(at + 1, at + 1 + bytes[at]).join());
      at += 1 + bytes[at];
    }
    return at;
  };
  return { records, take };
}

function encode(records: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(records.flatMap((record) => [record.length, ...record]));
}

Deno.test("records come out whole and in order, however they are cut", () => {
  const property = fc.property(
    fc.array(fc.uint8Array({ maxLength: 255 }), { maxLength: 40 }),
    fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 20 }),
    fc.integer({ min: 1, max: 50 }),
    (records, sizes, most) => {
      const bytes = encode(records);
      const { records: seen, take } = reader(most);
      const carry = new Carry();
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const piece = bytes.slice(at, at + sizes[i % sizes.length]);
        carry.feed(piece, 0, piece.length, take);
        piece.fill(0xee);
        at += sizes[i % sizes.length];
      }
      assert.deepEqual(seen, records.map((record) => record.join()));
      assert.equal(carry.pendingBytes, 0);
    },
  );
  fc.assert(property, { numRuns: 500, seed: 1 });
});

Deno.test("what waits is what is missing its end", () => {
  const { records, take } = reader(99);
  const carry = new Carry();
  carry.feed(Uint8Array.of(9, 9, 2, 1, 2, 3, 4), 2, 7, take);
  assert.deepEqual(records, ["1,2"]);
  assert.equal(carry.pendingBytes, 2);
  assert.deepEqual([...carry.pending], [3, 4]);
  carry.feed(Uint8Array.of(5, 6, 0), 0, 3, take);
  assert.deepEqual(records, ["1,2", "4,5,6", ""]);
  assert.equal(carry.pendingBytes, 0);
});

Deno.test("a record far longer than a piece is put together", () => {
  const carry = new Carry();
  const long = 100_000;
  let taken = 0;
  for (let i = 0; i < 300; i++) {
    carry.feed(new Uint8Array(1000), 0, 1000, (_bytes, start, end) => {
      if (end - start < long) return start;
      taken++;
      return start + long;
    });
  }
  assert.equal(taken, 3);
  assert.equal(carry.pendingBytes, 0);
});
