import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../errors.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { SecondaryTaps } from "./secondary_taps.ts";
import {
  decodeTapEvent,
  decodeTapInput,
  encodeTapEvent,
  encodeTapInput,
  INPUT_BYTES_PER_EPOCH,
  MAX_INPUT_FRAME_BYTES,
  MIN_INPUT_FRAME_BYTES,
  type TapEvent,
} from "./tap_events.ts";

function payload(event: TapEvent): Uint8Array {
  return join(encodeTapEvent(event));
}

function join(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

const write = (offset: number, ...data: number[]): TapEvent => {
  return { kind: "write", tap: "d", offset, data: Uint8Array.from(data) };
};
const packet = (...frame: number[]): TapEvent => {
  return { kind: "packet", tap: "n", frame: Uint8Array.from(frame) };
};

function taps(mode: "replicated" | "shared" = "replicated") {
  const disk = new FakeDisk(16);
  const copy = mode === "replicated" ? disk : undefined;
  return { disk, taps: new SecondaryTaps(new Map([["d", { mode, copy }]]), new Set(["n"])) };
}

function stage(replica: SecondaryTaps, ...events: TapEvent[]): void {
  for (const event of events) replica.stage(payload(event), 0);
}

Deno.test("every event survives its encoding", () => {
  const bytes = fc.uint8Array({ maxLength: 64 });
  const size = fc.nat({ max: Number.MAX_SAFE_INTEGER });
  const tap = fc.string({ minLength: 1, maxLength: 20 });
  const event: fc.Arbitrary<TapEvent> = fc.oneof(
    fc.record({ kind: fc.constant("packet" as const), tap, frame: bytes }),
    fc.record({ kind: fc.constant("write" as const), tap, offset: size, data: bytes }),
    fc.record({ kind: fc.constant("copy" as const), tap, offset: size, data: bytes }),
    fc.record({ kind: fc.constant("zero" as const), tap, offset: size, lengthBytes: size }),
    fc.record({
      kind: fc.constant("disk" as const),
      tap,
      sizeBytes: size,
      mode: fc.constantFrom("replicated" as const, "shared" as const),
    }),
    fc.record({ kind: fc.constant("copied" as const), tap }),
  );
  fc.assert(fc.property(event, (each) => {
    assert.deepEqual(decodeTapEvent(payload(each), 0), { ...each });
  }));
});

Deno.test("an event that is cut, or of no known kind, is refused", () => {
  const whole = payload({ kind: "disk", tap: "d", sizeBytes: 16, mode: "shared" });
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => decodeTapEvent(whole.subarray(0, length), 7), WireError);
  }
  assert.throws(() => decodeTapEvent(Uint8Array.of(9, 1, 100), 7), /of kind 9/);
});

Deno.test("replicated writes reach the copy at commit and not before, in order", () => {
  const { disk, taps: replica } = taps();
  stage(replica, write(0, 1, 1, 1), write(1, 2), {
    kind: "zero",
    tap: "d",
    offset: 2,
    lengthBytes: 1,
  });
  assert.deepEqual([...disk.bytes.subarray(0, 3)], [0, 0, 0]);
  replica.commit(1);
  assert.deepEqual([...disk.bytes.subarray(0, 3)], [1, 2, 0]);
});

Deno.test("an aborted transaction leaves no write", () => {
  const { disk, taps: replica } = taps();
  stage(replica, write(0, 1), packet(1));
  replica.abort();
  replica.commit(1);
  assert.equal(disk.bytes[0], 0);
  assert.deepEqual(replica.unreleased, []);
});

Deno.test("packets and shared writes are kept, in order, until released", () => {
  const { disk, taps: replica } = taps("shared");
  stage(replica, packet(1), write(0, 5));
  replica.commit(1);
  stage(replica, packet(2));
  replica.commit(2);
  stage(replica, write(1, 6), packet(3));
  replica.commit(3);
  assert.equal(disk.bytes[0], 0, "the shared image is the primary's until activation");
  replica.released(2);
  assert.deepEqual(
    replica.unreleased.map(({ transaction, event }) => [transaction, event.kind]),
    [[3, "write"], [3, "packet"]],
  );
  replica.released(3);
  assert.deepEqual(replica.unreleased, []);
});

Deno.test("what an earlier session left of a shared disk is not replayed over what came after it", () => {
  const { taps: replica } = taps("shared");
  const disk: TapEvent = { kind: "disk", tap: "d", sizeBytes: 16, mode: "shared" };
  stage(replica, disk, write(0, 1), packet(1));
  replica.commit(1);
  // The link is lost, the primary writes the 1 and then other things by itself, and is back.
  replica.sessionBegins();
  assert.deepEqual(replica.incomplete, ["d"], "the image is ahead of what is committed here");
  stage(replica, disk, write(3, 4));
  replica.commit(2);
  assert.deepEqual(replica.incomplete, []);
  assert.deepEqual(
    replica.unreleased.map(({ transaction, event }) => [transaction, event.kind]),
    [[1, "packet"], [2, "write"]],
  );
});

Deno.test("a copy that refuses a write keeps the rest pending, and catches up", () => {
  const { disk, taps: replica } = taps();
  disk.writesLeft = 1;
  stage(replica, write(0, 1), write(1, 2), write(2, 3));
  assert.throws(() => replica.commit(1), /disk full/);
  assert.equal(replica.pendingWrites, 2);
  disk.writesLeft = Infinity;
  replica.applyPending();
  assert.equal(replica.pendingWrites, 0);
  assert.deepEqual([...disk.bytes.subarray(0, 3)], [1, 2, 3]);
});

Deno.test("a replicated disk is incomplete until its first copy is committed", () => {
  const { taps: replica } = taps();
  stage(replica, { kind: "disk", tap: "d", sizeBytes: 16, mode: "replicated" });
  replica.commit(1);
  assert.deepEqual(replica.incomplete, ["d"]);
  stage(replica, { kind: "copied", tap: "d" });
  assert.deepEqual(replica.incomplete, ["d"]);
  replica.commit(2);
  assert.deepEqual(replica.incomplete, []);
});

const REFUSED: readonly (readonly [string, TapEvent, RegExp])[] = [
  ["an unknown disk", { ...write(0, 1), tap: "other" } as TapEvent, /disk tap other/],
  ["an unknown net", { ...packet(1), tap: "other" } as TapEvent, /net tap other/],
  ["a write beyond the end", write(15, 1, 2), /beyond disk d/],
  ["another mode", { kind: "disk", tap: "d", sizeBytes: 16, mode: "shared" }, /shared at the/],
  ["another size", { kind: "disk", tap: "d", sizeBytes: 17, mode: "replicated" }, /17 bytes/],
];
for (const [of, event, message] of REFUSED) {
  Deno.test(`${of} is refused before anything is staged`, () => {
    const { taps: replica } = taps();
    assert.throws(() => stage(replica, event), message);
    assert.equal(replica.stagedBytes, 0);
  });
}

const ether = (first: number, lengthBytes = 14) => {
  const frame = new Uint8Array(lengthBytes);
  frame[0] = first;
  return frame;
};
const input = (frame: Uint8Array, tap = "n") => join(encodeTapInput({ tap, frame }));
const inputsOf = (replica: SecondaryTaps) => replica.inputs.map(({ frame }) => frame[0]);

Deno.test("an input survives its encoding; one that is cut, or no frame, is refused", () => {
  const frame = fc.uint8Array({ minLength: MIN_INPUT_FRAME_BYTES, maxLength: 2000 });
  fc.assert(fc.property(fc.record({ tap: fc.string({ maxLength: 20 }), frame }), (each) => {
    assert.deepEqual(decodeTapInput(join(encodeTapInput(each)), 0), { ...each });
  }));
  for (const bytes of [[], [1], [65, ...new Uint8Array(100)]]) {
    assert.throws(() => decodeTapInput(Uint8Array.from(bytes), 7), /tap's name/);
  }
  for (const length of [0, 13, MAX_INPUT_FRAME_BYTES + 1]) {
    assert.throws(() => decodeTapInput(input(new Uint8Array(length)), 7), /a frame of \d+ bytes/);
  }
});

Deno.test("inputs are kept until a commit has them, and a little longer", () => {
  const { taps: replica } = taps();
  replica.input(1, input(ether(1)), 0, 1000);
  replica.input(1, input(ether(2)), 0, 1950);
  replica.input(2, input(ether(3)), 0, 1980);
  replica.forgetInputs(1, 2000);
  assert.deepEqual(inputsOf(replica), [2, 3], "the second may have been on its way");
  replica.forgetInputs(1, 9000);
  assert.deepEqual(inputsOf(replica), [3], "what no commit has is kept for as long as it takes");
  replica.abort();
  assert.deepEqual(inputsOf(replica), [3], "what is not committed changes nothing");
  replica.sessionBegins();
  assert.deepEqual(inputsOf(replica), [], "the primary went on");
});

Deno.test("the inputs kept are bounded, in bytes and in number: the oldest go", () => {
  const { taps: replica } = taps();
  for (let i = 0; i < 40; i++) replica.input(1, input(ether(i, 16_000)), 0, 0);
  const large = inputsOf(replica);
  assert.ok(large.length > 10 && large.length * 16_000 <= 4 * INPUT_BYTES_PER_EPOCH);
  assert.equal(large.at(-1), 39);
  for (let i = 0; i < 10_000; i++) replica.input(1, input(ether(i % 256)), 0, 0);
  assert.ok(replica.inputs.length < 4000, `${replica.inputs.length}`);
});

Deno.test("an input for a NIC that is not here is refused", () => {
  const { taps: replica } = taps();
  assert.throws(() => replica.input(1, input(ether(1), "other"), 7, 0), /net tap other/);
});
