import assert from "node:assert/strict";
import fc from "fast-check";
import { DirtyBitmap } from "./dirty_bitmap.ts";

function pagesOf(bitmap: DirtyBitmap): number[] {
  const pages: number[] = [];
  bitmap.forEach((page) => void pages.push(page));
  return pages;
}

Deno.test("a bitmap does what a set of numbers does, whatever the order of calls", () => {
  const sizes = [1, 31, 32, 33, 1023, 1024, 1025, 5000];
  const step = fc.tuple(fc.constantFrom("set", "clear", "drain"), fc.nat());
  fc.assert(fc.property(fc.constantFrom(...sizes), fc.array(step), (size, steps) => {
    const bitmap = new DirtyBitmap(size);
    const model = new Set<number>();
    for (const [what, number] of steps) {
      const page = number % size;
      if (what === "set") assert.equal(bitmap.set(page), !model.has(page));
      else if (what === "clear") assert.equal(bitmap.clear(page), model.has(page));
      if (what === "set") model.add(page);
      else if (what === "clear") model.delete(page);
      else if (number % 4 === 0) {
        const drained: number[] = [];
        bitmap.drain((each) => void drained.push(each));
        assert.deepEqual(drained, [...model].sort((a, b) => a - b));
        model.clear();
      }
      assert.equal(bitmap.count, model.size);
      assert.equal(bitmap.has(page), model.has(page));
    }
    const expected = [...model].sort((a, b) => a - b);
    assert.deepEqual(pagesOf(bitmap), expected);
    for (let from = 0; from <= size; from++) {
      assert.equal(bitmap.next(from), expected.find((page) => page >= from) ?? size);
    }
  }));
});

Deno.test("the first and the last page of words, groups and the set itself are found", () => {
  const size = 3 * 1024;
  for (const page of [0, 31, 32, 1023, 1024, 2047, 2048, size - 1]) {
    const bitmap = new DirtyBitmap(size);
    bitmap.set(page);
    assert.deepEqual(pagesOf(bitmap), [page]);
    assert.equal(bitmap.next(0), page);
    assert.equal(bitmap.next(page), page);
    assert.equal(bitmap.next(page + 1), size);
  }
});

Deno.test("pages beyond 2³¹ are numbers like others", () => {
  const pages = 2 ** 31 + 64;
  const bitmap = new DirtyBitmap(pages);
  bitmap.set(pages - 1);
  bitmap.set(2 ** 31);
  assert.deepEqual(pagesOf(bitmap), [2 ** 31, pages - 1]);
  assert.equal(bitmap.next(1), 2 ** 31);
  assert.equal(bitmap.next(2 ** 31 + 1), pages - 1);
});

Deno.test("an emptied bitmap can be filled again", () => {
  const bitmap = new DirtyBitmap(100);
  for (const page of [3, 64, 99]) bitmap.set(page);
  bitmap.reset();
  assert.deepEqual([bitmap.count, bitmap.next(0), bitmap.has(64)], [0, 100, false]);
  assert.equal(bitmap.set(64), true);
  assert.deepEqual(pagesOf(bitmap), [64]);
});
