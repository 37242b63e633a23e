import assert from "node:assert/strict";
import fc from "fast-check";
import { PageCensus, type PageForm } from "./page_census.ts";

const PAGE_BYTES = 4096;
const FORMS: readonly PageForm[] = ["pages", "zeroPages", "fillPages", "xbzrlePages"];

Deno.test("a census counts forms, distinct pages and duplicates by block", () => {
  const census = new PageCensus([
    { name: "pc.ram", lengthBytes: 2 ** 44 },
    { name: "rom", lengthBytes: 2 * PAGE_BYTES },
  ], PAGE_BYTES);
  census.count(0, 0, "zeroPages");
  census.count(0, 0, "pages");
  census.count(0, 0, "xbzrlePages");
  census.count(0, 2 ** 44 - PAGE_BYTES, "pages");
  census.count(1, PAGE_BYTES, "fillPages");
  assert.deepEqual(census.blocks(), [
    {
      name: "pc.ram",
      lengthBytes: 2 ** 44,
      pages: 2,
      zeroPages: 1,
      fillPages: 0,
      xbzrlePages: 1,
      distinctPages: 2,
      duplicatePages: 2,
    },
    {
      name: "rom",
      lengthBytes: 2 * PAGE_BYTES,
      pages: 0,
      zeroPages: 0,
      fillPages: 1,
      xbzrlePages: 0,
      distinctPages: 1,
      duplicatePages: 0,
    },
  ]);
});

Deno.test("a census agrees with a set of page numbers", () => {
  // Around the borders of leaves, where numbers are dense enough to repeat.
  const page = fc.oneof(fc.nat(70), fc.integer({ min: 32760, max: 32780 }), fc.nat(2 ** 22 - 1));
  const sent = fc.array(fc.tuple(page, fc.constantFrom(...FORMS)), { maxLength: 300 });
  const property = fc.property(sent, (pages) => {
    const block = { name: "ram", lengthBytes: 2 ** 22 * PAGE_BYTES };
    const census = new PageCensus([block], PAGE_BYTES);
    for (const [number, form] of pages) census.count(0, number * PAGE_BYTES, form);
    const [counted] = census.blocks();
    const distinct = new Set(pages.map(([number]) => number)).size;
    assert.equal(counted.distinctPages, distinct);
    assert.equal(counted.duplicatePages, pages.length - distinct);
    for (const form of FORMS) {
      assert.equal(counted[form], pages.filter(([, each]) => each === form).length);
    }
  });
  fc.assert(property, { numRuns: 100, seed: 2010 });
});
