import assert from "node:assert/strict";
import fc from "fast-check";
import { PrimaryDiskTap } from "./primary_disk_tap.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import type { DiskMode } from "./tap_events.ts";

const SIZE = 3 * 4096 + 512;

function tapOf(mode: DiskMode): { tap: PrimaryDiskTap; store: FakeDisk } {
  const store = new FakeDisk(SIZE);
  const tap = new PrimaryDiskTap("d", mode, store);
  tap.start();
  tap.hold();
  return { tap, store };
}

function read(tap: PrimaryDiskTap, offset: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  tap.read(bytes, offset);
  return bytes;
}

Deno.test("a replicated write is on the primary's disk at once, and travels with its epoch", () => {
  const { tap, store } = tapOf("replicated");
  const buffer = Uint8Array.of(1, 2);
  tap.write(4095, buffer);
  buffer.fill(9);
  assert.deepEqual([...store.bytes.subarray(4095, 4097)], [1, 2]);
  assert.deepEqual(tap.takeEvents(), [
    { kind: "disk", tap: "d", sizeBytes: SIZE, mode: "replicated" },
    { kind: "write", tap: "d", offset: 4095, data: Uint8Array.of(1, 2) },
  ]);
  assert.equal(tap.heldBytes, 0);
});

Deno.test("a shared write is read back at once, and reaches the image when its epoch is released", () => {
  const { tap, store } = tapOf("shared");
  store.bytes.fill(7);
  tap.write(10, Uint8Array.of(1));
  tap.closeEpoch(1);
  tap.write(11, Uint8Array.of(2));
  tap.zero(12, 1);
  tap.closeEpoch(2);
  tap.write(10, Uint8Array.of(3));
  assert.deepEqual([...read(tap, 9, 5)], [7, 3, 2, 0, 7]);
  assert.deepEqual([...store.bytes.subarray(9, 14)], [7, 7, 7, 7, 7]);
  tap.release(1);
  assert.deepEqual([...store.bytes.subarray(9, 14)], [7, 1, 7, 7, 7]);
  assert.deepEqual([...read(tap, 9, 5)], [7, 3, 2, 0, 7]);
  tap.release(2);
  assert.deepEqual([...store.bytes.subarray(9, 14)], [7, 1, 2, 0, 7]);
  assert.equal(tap.unreleasedWrites, 1);
  tap.passThrough();
  assert.deepEqual([...store.bytes.subarray(9, 14)], [7, 3, 2, 0, 7]);
  assert.equal(tap.heldBytes, 0);
});

Deno.test("an image that refuses keeps the write readable, and gets it later", () => {
  const { tap, store } = tapOf("shared");
  tap.write(0, Uint8Array.of(1));
  tap.write(1, Uint8Array.of(2));
  tap.closeEpoch(1);
  store.writesLeft = 1;
  assert.throws(() => tap.release(1), /disk full/);
  assert.deepEqual([...read(tap, 0, 2)], [1, 2]);
  store.writesLeft = Infinity;
  tap.release(1);
  assert.deepEqual([...store.bytes.subarray(0, 2)], [1, 2]);
});

Deno.test("a shared image that refuses when the secondary is lost: no later write gets ahead", () => {
  const { tap, store } = tapOf("shared");
  tap.write(0, Uint8Array.of(1));
  tap.closeEpoch(1);
  tap.write(1, Uint8Array.of(2));
  store.writesLeft = 0;
  assert.throws(() => tap.passThrough(), /disk full/);
  assert.ok(tap.isStuck);
  assert.deepEqual([...read(tap, 0, 2)], [1, 2]);
  assert.throws(() => tap.write(0, Uint8Array.of(9)), /disk full/);
  assert.deepEqual([...read(tap, 0, 2)], [1, 2], "the guest was told that this one failed");
  store.writesLeft = Infinity;
  tap.write(0, Uint8Array.of(3));
  assert.equal(tap.isStuck, false);
  assert.deepEqual([...store.bytes.subarray(0, 2)], [3, 2]);
});

Deno.test("what a shared image still refuses when a secondary comes back travels to it first", () => {
  const { tap, store } = tapOf("shared");
  tap.write(0, Uint8Array.of(1));
  store.writesLeft = 0;
  assert.throws(() => tap.passThrough(), /disk full/);
  tap.start();
  tap.write(0, Uint8Array.of(2));
  assert.deepEqual(tap.takeEvents().map(({ kind }) => kind), ["disk", "write", "write"]);
  tap.closeEpoch(7);
  store.writesLeft = Infinity;
  assert.equal(store.bytes[0], 0, "the image does not get ahead of the secondary");
  tap.release(7);
  assert.equal(store.bytes[0], 2);
  assert.equal(tap.unreleasedWrites, 0);
});

Deno.test("what a full disk made of a write that failed is at the secondary too", () => {
  const { tap, store } = tapOf("replicated");
  tap.takeEvents();
  store.writesLeft = 0;
  assert.throws(() => tap.write(0, Uint8Array.of(1, 2, 3, 4)), /disk full/);
  assert.deepEqual(tap.takeEvents(), [
    { kind: "write", tap: "d", offset: 0, data: store.bytes.slice(0, 4) },
  ]);
});

Deno.test("a shared disk that is trimmed whole takes little memory, and reads as zeros", () => {
  const store = new FakeDisk(64 * 2 ** 20);
  store.bytes.fill(7);
  const tap = new PrimaryDiskTap("d", "shared", store);
  tap.start();
  tap.hold();
  tap.zero(100, store.sizeBytes - 200);
  assert.ok(tap.heldBytes < 4 * 2 ** 20, `${tap.heldBytes}`);
  assert.deepEqual([...read(tap, 98, 4)], [7, 7, 0, 0]);
  tap.write(2 ** 20 + 1, Uint8Array.of(9));
  tap.write(2 ** 21 + 1, Uint8Array.of(8));
  assert.deepEqual([...read(tap, 2 ** 20, 3)], [0, 9, 0], "no two pages share what is written");
  tap.takeEvents();
  tap.closeEpoch(1);
  tap.release(1);
  assert.equal(tap.heldBytes, 0);
  assert.deepEqual([...store.bytes.subarray(2 ** 21, 2 ** 21 + 3)], [0, 8, 0]);
});

Deno.test("writes that wait for their release count as held, however often they hit one page", () => {
  const { tap } = tapOf("shared");
  for (let i = 0; i < 100; i++) tap.write(0, new Uint8Array(4096).fill(i));
  tap.takeEvents();
  tap.closeEpoch(1);
  assert.ok(tap.heldBytes > 100 * 4096);
  tap.release(1);
  assert.equal(tap.heldBytes, 0);
});

Deno.test("whatever is written, held and released: reads see every write, the image every released one", () => {
  const action = fc.oneof(
    fc.record({
      kind: fc.constant("write" as const),
      offset: fc.nat(SIZE - 1),
      length: fc.integer({ min: 1, max: 6000 }),
      value: fc.integer({ min: 1, max: 255 }),
    }),
    fc.record({
      kind: fc.constant("zero" as const),
      offset: fc.nat(SIZE - 1),
      length: fc.integer({ min: 1, max: 6000 }),
    }),
    fc.constant({ kind: "close" as const }),
    fc.constant({ kind: "release" as const }),
  );
  for (const mode of ["shared", "replicated"] as const) {
    fc.assert(fc.property(fc.array(action, { maxLength: 40 }), (actions) => {
      const { tap, store } = tapOf(mode);
      const seen = new Uint8Array(SIZE);
      const closed: Uint8Array[] = [seen.slice()];
      let released = 0;
      for (const each of actions) {
        if (each.kind === "close") {
          tap.closeEpoch(closed.length);
          closed.push(seen.slice());
        } else if (each.kind === "release") {
          if (released + 1 < closed.length) tap.release(++released);
        } else {
          const length = Math.min(each.length, SIZE - each.offset);
          seen.fill(each.kind === "write" ? each.value : 0, each.offset, each.offset + length);
          if (each.kind === "zero") tap.zero(each.offset, length);
          else tap.write(each.offset, new Uint8Array(length).fill(each.value));
        }
        assert.deepEqual(read(tap, 0, SIZE), seen);
        assert.deepEqual(store.bytes, mode === "shared" ? closed[released] : seen);
      }
    }));
  }
});

Deno.test("two writes to parts of one page of a shared disk whose storage stalls: both are there", () => {
  const { tap, store } = tapOf("shared");
  store.bytes.fill(7);
  tap.hold();
  store.isStalled = true;
  const done: number[] = [];
  tap.write(1, Uint8Array.of(1), () => done.push(1));
  tap.write(3, Uint8Array.of(3), () => done.push(3));
  // One that needs nothing of the image does not wait for it.
  tap.write(4096, new Uint8Array(4096), () => done.push(0));
  assert.deepEqual(done, [0]);
  store.drain();
  assert.deepEqual(done, [0, 1, 3]);
  store.isStalled = false;
  assert.deepEqual([...read(tap, 0, 5)], [7, 1, 7, 3, 7]);
});

Deno.test("a replicated write is recorded when the image has it, and not when it was asked for", () => {
  const { tap, store } = tapOf("replicated");
  tap.takeEvents();
  store.isStalled = true;
  let done = 0;
  tap.write(0, Uint8Array.of(1), () => done++);
  tap.write(0, Uint8Array.of(2), () => done++);
  assert.deepEqual([done, tap.takeEvents()], [0, []]);
  store.step();
  assert.equal(done, 1);
  assert.equal(tap.takeEvents().length, 1);
  store.drain();
  assert.equal(tap.takeEvents().length, 1);
});

Deno.test("what is released while the image stalls stays readable, and comes before what passes through", () => {
  const { tap, store } = tapOf("shared");
  tap.hold();
  tap.write(0, Uint8Array.of(1));
  tap.takeEvents();
  tap.closeEpoch(1);
  store.isStalled = true;
  let released = 0;
  tap.release(1, () => released++);
  let passed = 0;
  tap.write(0, Uint8Array.of(2), () => passed++);
  tap.passThrough(() => {});
  tap.write(0, Uint8Array.of(3), () => passed++);
  assert.deepEqual([released, passed], [0, 1], "a held write does not wait for the image");
  store.drain();
  assert.deepEqual([released, passed], [1, 2]);
  assert.equal(store.bytes[0], 3);
  assert.equal(tap.unreleasedWrites, 0);
  assert.equal(tap.heldBytes, 0);
});
