import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { Replica } from "../secondary/replica.ts";
import { SlotPool } from "./slot_pool.ts";

/** Gives so many slabs, and has no memory for more. */
function slabs(count: number) {
  return (bytes: number) => {
    if (count-- === 0) throw new RangeError("Array buffer allocation failed");
    return new Uint8Array(bytes);
  };
}

Deno.test("without memory a page is refused as storage that fails, and what there is stays usable", () => {
  const pool = new SlotPool(65536, slabs(1));
  const slots = Array.from({ length: 32 }, () => pool.acquire());
  assert.throws(() => pool.acquire(), (error) => {
    assert.ok(error instanceof TransportError && error.party === "replica");
    assert.match(error.message, /^memory: no more for pages, which take 2 MiB$/);
    return true;
  });
  assert.equal(pool.live, 32);
  pool.release(slots[7]);
  assert.equal(pool.acquire(), slots[7]);
});

Deno.test("a first transaction for which there is no memory leaves no replica and no pages", () => {
  const replica = new Replica(1e9, slabs(0));
  const full = fullStream(1);
  replica.begin({ full: true, based: false });
  assert.throws(() => replica.receive(full, 0, full.length), TransportError);
  replica.abort();
  assert.deepEqual([replica.committed, replica.memoryBytes], [0, 0]);
});
