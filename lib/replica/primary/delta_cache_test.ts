import assert from "node:assert/strict";
import fc from "fast-check";
import { decodeXbzrle } from "../../qemu/xbzrle.ts";
import { DeltaCache, DIFFERENCE } from "./delta_cache.ts";

const PAGE_BYTES = 1024;
const BLOCKS = [{ name: "a", lengthBytes: 16 * PAGE_BYTES }, { name: "b", lengthBytes: 4096 }];

function cacheOf(pages: number): DeltaCache {
  const cache = new DeltaCache(pages * PAGE_BYTES);
  cache.begin(BLOCKS, PAGE_BYTES);
  return cache;
}

const pageOf = (value: number) => new Uint8Array(PAGE_BYTES).fill(value);
const out = new Uint8Array(PAGE_BYTES);

/** Sends a page. @returns whether the receiver's copy of it was known. */
function send(cache: DeltaCache, page: number, content: Uint8Array): boolean {
  const before = cache.hits;
  cache.difference(0, page, new DataView(content.buffer), 0, out, 500);
  return cache.hits > before;
}

Deno.test("it knows what was sent, and nothing else", () => {
  const cache = cacheOf(8);
  assert.equal(send(cache, 1, pageOf(1)), false);
  assert.equal(send(cache, 1, pageOf(2)), true);
  cache.forget(0, 1);
  assert.equal(send(cache, 1, pageOf(2)), false);
  assert.equal(cache.setZeros(0, 1), false);
  assert.equal(cache.setZeros(0, 1), true);
  assert.equal(cache.memoryBytes, 0, "zeros take no memory");
  const view = new DataView(pageOf(0).buffer);
  assert.equal(cache.difference(0, 1, view, 0, out, 500), 0, "and are known as a page too");
  cache.clear();
  assert.equal(cache.setZeros(0, 1), false);
});

Deno.test("pages that are sent again stay, and those that are not make room", () => {
  const cache = cacheOf(4);
  for (const page of [0, 1]) send(cache, page, pageOf(page));
  for (let round = 1; round < 40; round++) {
    assert.ok(send(cache, 0, pageOf(round)), `the first is still there in round ${round}`);
    assert.ok(send(cache, 1, pageOf(round)), `the second is still there in round ${round}`);
    send(cache, 2 + round % 14, pageOf(round));
    assert.ok(cache.memoryBytes <= 4 * PAGE_BYTES);
  }
  assert.ok(cache.evictions > 20);
});

Deno.test("any use of it: a known page is the one sent last, and memory stays within bounds", () => {
  const step = fc.record({
    what: fc.constantFrom("send", "send", "send", "zeros", "forget", "clear", "begin"),
    block: fc.nat(1),
    page: fc.nat(15),
    seed: fc.nat(255),
    few: fc.boolean(),
  });
  fc.assert(
    fc.property(
      fc.array(step, { maxLength: 80 }),
      fc.integer({ min: 0, max: 9 }),
      (steps, size) => {
        const cache = cacheOf(size);
        /** What the receiver has; absent where the cache may not know. */
        const receiver = new Map<string, Uint8Array>();
        for (const { what, block, page: wide, seed, few } of steps) {
          const page = block === 0 ? wide : wide % 4;
          const key = `${block} ${page}`;
          switch (what) {
            case "send": {
              const content = (few ? receiver.get(key)?.slice() : undefined) ?? pageOf(seed);
              if (few) content[seed] ^= 1;
              const view = new DataView(content.buffer);
              const length = cache.difference(block, page, view, 0, out, 700);
              if (length !== DIFFERENCE.whole) {
                const applied = receiver.get(key)!.slice();
                decodeXbzrle(out, 0, length, applied, 0);
                assert.deepEqual(applied, content);
              }
              receiver.set(key, content);
              break;
            }
            case "zeros":
              if (cache.setZeros(block, page)) assert.deepEqual(receiver.get(key), pageOf(0));
              receiver.set(key, pageOf(0));
              break;
            case "forget":
              cache.forget(block, page);
              receiver.delete(key);
              break;
            case "clear":
            case "begin":
              if (what === "clear") cache.clear();
              else cache.begin(BLOCKS, PAGE_BYTES);
              receiver.clear();
          }
          assert.ok(cache.memoryBytes <= size * PAGE_BYTES);
        }
      },
    ),
    { numRuns: 300, seed: 3 },
  );
});

Deno.test("pages too large for a difference are not kept", () => {
  const cache = new DeltaCache(2 ** 24);
  cache.begin([{ name: "a", lengthBytes: 2 ** 20 }], 64 * 1024);
  const view = new DataView(new ArrayBuffer(64 * 1024));
  const large = new Uint8Array(64 * 1024);
  assert.equal(cache.difference(0, 0, view, 0, large, 60_000), DIFFERENCE.whole);
  assert.equal(cache.difference(0, 0, view, 0, large, 60_000), DIFFERENCE.whole);
  assert.equal(cache.memoryBytes, 0);
});
