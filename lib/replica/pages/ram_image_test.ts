import assert from "node:assert/strict";
import { WireError } from "../../errors.ts";
import type { RamRecord } from "../../qemu/ram_record.ts";
import { checkStaged, RamImage } from "./ram_image.ts";
import { SlotPool } from "./slot_pool.ts";

const PAGE_BYTES = 4096;
/** What one leaf of a table is for. */
const LEAF_BYTES = 16 * 2 ** 20;

/** Pages of a fourth of that are a leaf each. */
const LIMIT = 64 * 2 ** 20;

/** A page whose bytes are all one value. */
function fill(pageOffset: number, value = 7): RamRecord {
  const place = { block: 0, pageOffset, named: false, offset: 0, endOffset: 9 };
  return { kind: "fill", ...place, bytes: Uint8Array.of(value), at: 0, lengthBytes: 1 };
}

Deno.test("pages that lie apart are refused when their tables are too large, and the next transaction has its own", () => {
  const image = new RamImage([{ name: "a", lengthBytes: 2 ** 40 }], new SlotPool(PAGE_BYTES));
  const stage = (n: number) => {
    image.stage(fill(n * LEAF_BYTES));
    checkStaged(image, LIMIT, 5);
  };
  for (let n = 0; n < 4096; n++) stage(n);
  assert.equal(image.stagedTableBytes, LIMIT);
  assert.throws(() => stage(4096), (error) => {
    assert.ok(error instanceof WireError && error.offset === 5, `${error}`);
    assert.match(error.message, /so far apart that their tables take more than 67108864 bytes/);
    return error.fault === "too-large";
  });
  image.abort();
  assert.equal(image.stagedTableBytes, 0);
  // The same places cost nothing more.
  for (let n = 0; n < 4096; n++) stage(n);
  assert.equal(image.stagedTableBytes, 0);
  image.release();
});
