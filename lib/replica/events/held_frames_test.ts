import assert from "node:assert/strict";
import fc from "fast-check";
import { StateError } from "../../errors.ts";
import { HeldFrames } from "./held_frames.ts";

const ROOMY = { maxFrames: 1000, maxBytes: 1_000_000 };

/** A frame that can be told from all others. */
function frame(number: number, lengthBytes = 14): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

function numberOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
}

/** Takes all that may leave. */
function takeAll(held: HeldFrames, nowMs = 0): number[] {
  const left: number[] = [];
  for (let next = held.peek(); next !== undefined; next = held.peek()) {
    left.push(numberOf(next));
    held.taken(nowMs);
  }
  return left;
}

Deno.test("frames leave with their epoch, in order, and never before", () => {
  const held = new HeldFrames(ROOMY);
  held.hold();
  held.add(frame(1), 10);
  held.add(frame(2), 11);
  assert.equal(held.release(99), 0, "the open epoch has no number that could be released");
  const first = held.closeEpoch(7);
  assert.deepEqual([first.epoch, first.frames.map(numberOf), first.bytes], [7, [1, 2], 28]);
  held.add(frame(3), 12);
  const second = held.closeEpoch(8);
  assert.deepEqual(second.frames.map(numberOf), [3]);
  held.add(frame(4), 13);
  assert.deepEqual([held.heldFrames, held.heldBytes, held.openFrames], [4, 56, 1]);
  assert.deepEqual(takeAll(held), []);
  assert.equal(held.takeLeftEpoch(), undefined);
  assert.equal(held.release(7), 2);
  assert.deepEqual(takeAll(held, 15), [1, 2]);
  assert.equal(held.takeLeftEpoch(), 7);
  assert.equal(held.release(100), 1);
  assert.equal(held.takeLeftEpoch(), undefined, "released, but still in the line");
  assert.deepEqual(takeAll(held, 16), [3]);
  assert.equal(held.takeLeftEpoch(), 8);
  assert.equal(held.takeLeftEpoch(), undefined);
  assert.equal(held.holdTime.summary().count, 3);
  assert.equal(held.holdTime.summary().max, 5);
  assert.deepEqual(held.closeEpoch(9).frames.map(numberOf), [4]);
});

Deno.test("an epoch without frames leaves at once, but not before its elders", () => {
  const held = new HeldFrames(ROOMY);
  held.hold();
  held.closeEpoch(1);
  held.release(1);
  assert.equal(held.takeLeftEpoch(), 1);
  held.add(frame(1), 0);
  held.closeEpoch(2);
  held.closeEpoch(3);
  held.release(3);
  assert.equal(held.takeLeftEpoch(), undefined);
  takeAll(held);
  assert.equal(held.takeLeftEpoch(), 3);
});

Deno.test("passThrough lets all go in order, and hold begins anew behind it", () => {
  const held = new HeldFrames(ROOMY);
  held.add(frame(1), 0);
  assert.deepEqual(takeAll(held), [1], "nothing is held before hold()");
  assert.equal(held.holdTime.summary().count, 0);
  held.hold();
  held.add(frame(2), 0);
  held.closeEpoch(1);
  held.add(frame(3), 0);
  assert.equal(held.passThrough(), 2);
  held.add(frame(4), 0);
  held.hold();
  held.add(frame(5), 0);
  assert.deepEqual(takeAll(held), [2, 3, 4]);
  assert.equal(held.holdTime.summary().count, 2);
  assert.deepEqual(held.closeEpoch(2).frames.map(numberOf), [5]);
});

Deno.test("an epoch closed while frames pass has none, and moves nothing back when released", () => {
  const held = new HeldFrames(ROOMY);
  held.add(frame(1), 0);
  assert.deepEqual(held.closeEpoch(1).frames, []);
  held.add(frame(2), 0);
  held.hold();
  held.add(frame(3), 0);
  assert.deepEqual(held.closeEpoch(2).frames.map(numberOf), [3]);
  assert.equal(held.release(1), 0);
  assert.deepEqual(takeAll(held), [1, 2]);
  assert.equal(held.takeLeftEpoch(), 1);
  held.release(2);
  assert.deepEqual(takeAll(held), [3]);
  assert.equal(held.heldBytes, 0);
});

Deno.test("a cancelled epoch's frames join the next; its number releases nothing any more", () => {
  const held = new HeldFrames(ROOMY);
  held.hold();
  held.add(frame(1), 0);
  held.closeEpoch(1);
  held.add(frame(2), 0);
  held.closeEpoch(2);
  held.add(frame(3), 0);
  held.reopenEpochs(2);
  assert.equal(held.openFrames, 2);
  assert.equal(held.release(2), 1);
  assert.throws(() => held.closeEpoch(2), StateError);
  assert.throws(() => held.reopenEpochs(1), StateError);
  assert.deepEqual(held.closeEpoch(3).frames.map(numberOf), [2, 3]);
  held.release(3);
  assert.deepEqual(takeAll(held), [1, 2, 3]);
});

Deno.test("epochs are closed in ascending order, and nothing leaves that may not", () => {
  const held = new HeldFrames(ROOMY);
  held.hold();
  held.closeEpoch(5);
  assert.throws(() => held.closeEpoch(5), StateError);
  assert.throws(() => held.closeEpoch(4), StateError);
  held.add(frame(1), 0);
  assert.equal(held.peek(), undefined);
  assert.throws(() => held.taken(0), StateError);
});

Deno.test("it is full at either limit, counting what may leave but has not", () => {
  const byFrames = new HeldFrames({ maxFrames: 2, maxBytes: 1000 });
  byFrames.add(frame(1), 0);
  assert.equal(byFrames.isFull, false);
  byFrames.add(frame(2), 0);
  assert.equal(byFrames.isFull, true);
  byFrames.taken(0);
  assert.equal(byFrames.isFull, false);
  const byBytes = new HeldFrames({ maxFrames: 100, maxBytes: 100 });
  byBytes.hold();
  byBytes.add(frame(1, 100), 0);
  assert.equal(byBytes.isFull, true);
  byBytes.add(frame(2, 100), 0);
  assert.equal(byBytes.queuedBytes, 200, "what was read is never lost");
});

type Step =
  | { readonly kind: "add" | "close" | "pass" | "hold" }
  | { readonly kind: "release" | "cancel" | "take"; readonly pick: number };

const steps = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: fc.constant<Step>({ kind: "add" }) },
    { weight: 3, arbitrary: fc.constant<Step>({ kind: "close" }) },
    {
      weight: 3,
      arbitrary: fc.record({ kind: fc.constant("release" as const), pick: fc.nat(40) }),
    },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("take" as const), pick: fc.nat(5) }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("cancel" as const), pick: fc.nat(3) }) },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: "hold" }) },
    { weight: 1, arbitrary: fc.constant<Step>({ kind: "pass" }) },
  ),
  { maxLength: 120 },
);

Deno.test("whatever happens, nothing overtakes, is lost, doubled or released early", () => {
  fc.assert(fc.property(steps, (all) => {
    const held = new HeldFrames(ROOMY);
    held.hold();
    let isHolding = true;
    let added = 0;
    let epoch = 0;
    let releasedUpTo = 0;
    /** What the model knows of each frame: its epoch once closed, and whether it may go anyway. */
    const closedAs = new Map<number, number>();
    const free = new Set<number>();
    const left: number[] = [];
    const take = (count: number) => {
      for (let i = 0; i < count; i++) {
        const next = held.peek();
        if (next === undefined) return;
        const number = numberOf(next);
        const mayLeave = free.has(number) || (closedAs.get(number) ?? Infinity) <= releasedUpTo;
        assert.ok(mayLeave, `frame ${number} leaves before its epoch ${closedAs.get(number)}`);
        held.taken(0);
        left.push(number);
      }
    };
    for (const step of all) {
      switch (step.kind) {
        case "add":
          held.add(frame(++added), 0);
          if (!isHolding) free.add(added);
          break;
        case "close": {
          const { frames } = held.closeEpoch(++epoch);
          const expected: number[] = [];
          for (let n = 1; n <= added; n++) {
            if (!free.has(n) && !closedAs.has(n)) expected.push(n);
          }
          assert.deepEqual(frames.map(numberOf), expected);
          for (const number of expected) closedAs.set(number, epoch);
          break;
        }
        case "release":
          // Acknowledged is only what was closed.
          if (step.pick > epoch) break;
          releasedUpTo = Math.max(releasedUpTo, step.pick);
          held.release(step.pick);
          break;
        case "cancel": {
          const from = epoch - step.pick;
          if (from <= releasedUpTo) break;
          held.reopenEpochs(from);
          for (const [number, of] of closedAs) if (of >= from) closedAs.delete(number);
          // A transaction that was cancelled is never acknowledged.
          break;
        }
        case "take":
          take(step.pick);
          break;
        case "hold":
          held.hold();
          isHolding = true;
          break;
        case "pass":
          held.passThrough();
          isHolding = false;
          for (let n = 1; n <= added; n++) free.add(n);
          releasedUpTo = epoch;
          break;
      }
      assert.equal(held.queuedFrames, added - left.length);
    }
    held.passThrough();
    for (let n = 1; n <= added; n++) free.add(n);
    take(Infinity);
    assert.deepEqual(left, Array.from({ length: added }, (_, i) => i + 1));
    assert.deepEqual([held.heldFrames, held.heldBytes, held.queuedBytes], [0, 0, 0]);
  }));
});

Deno.test("a long line is compacted without losing its place", () => {
  const held = new HeldFrames({ maxFrames: 1e6, maxBytes: 1e9 });
  held.hold();
  for (let n = 0; n < 20_000; n++) {
    held.add(frame(n), 0);
    if (n % 1000 === 999) held.closeEpoch(n);
  }
  const left: number[] = [];
  for (let n = 999; n < 20_000; n += 1000) {
    held.release(n);
    left.push(...takeAll(held));
    assert.equal(left.length, n + 1);
  }
  assert.ok(left.every((number, i) => number === i));
});
