import assert from "node:assert/strict";
import fc from "fast-check";
import { StateError } from "../../errors.ts";
import { LatencyWindow } from "../latency_window.ts";
import { PageTable } from "../pages/page_table.ts";
import { SlotPool } from "../pages/slot_pool.ts";

Deno.test("a page table is an array of numbers, however sparse", () => {
  const pages = 100_000;
  const writes = fc.array(
    fc.tuple(fc.nat(pages - 1), fc.oneof(fc.constant(0), fc.nat(2 ** 31 - 1))),
    { maxLength: 50 },
  );
  fc.assert(
    fc.property(writes, fc.nat(pages), (list, from) => {
      const table = new PageTable(pages);
      const model = new Map<number, number>();
      for (const [page, value] of list) {
        table.set(page, value);
        if (value === 0) model.delete(page);
        else model.set(page, value);
      }
      for (const [page] of list) assert.equal(table.get(page), model.get(page) ?? 0);
      const seen: [number, number][] = [];
      table.forEach((page, value) => seen.push([page, value]));
      const expected = [...model].sort(([a], [b]) => a - b);
      assert.deepEqual(seen, expected);
      assert.equal(table.next(from), expected.find(([page]) => page >= from)?.[0] ?? pages);
    }),
    { numRuns: 60, seed: 12 },
  );
});

Deno.test("the last page of the largest block has a place", () => {
  const table = new PageTable(2 ** 32);
  table.set(2 ** 32 - 1, 7);
  assert.equal(table.get(2 ** 32 - 1), 7);
  assert.equal(table.get(0), 0);
  assert.equal(table.next(2 ** 32 - 5000), 2 ** 32 - 1);
});

Deno.test("slots are used again, and never overlap", () => {
  let slabs = 0;
  const pool = new SlotPool(4096, (bytes) => {
    slabs++;
    return new Uint8Array(bytes);
  });
  const slots = Array.from({ length: 1500 }, () => pool.acquire());
  assert.equal(new Set(slots).size, 1500);
  assert.equal(slabs, 3);
  slots.forEach((slot, n) => pool.page(slot).fill(n % 251));
  slots.forEach((slot, n) => assert.ok(pool.page(slot).every((byte) => byte === n % 251)));
  for (const slot of slots) pool.release(slot);
  assert.equal(pool.live, 0);
  for (let n = 0; n < 1500; n++) pool.acquire();
  assert.equal(slabs, 3);
  assert.throws(() => new SlotPool(3000), StateError);
});

Deno.test("percentiles are of the last durations, count and maximum of all", () => {
  const window = new LatencyWindow(100);
  assert.deepEqual(window.summary(), { count: 0, p50: 0, p99: 0, max: 0 });
  window.add(5000);
  for (let ms = 1; ms <= 100; ms++) window.add(ms);
  assert.deepEqual(window.summary(), { count: 101, p50: 50, p99: 99, max: 5000 });
});
