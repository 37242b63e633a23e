import assert from "node:assert/strict";
import { wireFault } from "../../txn/testing/session_pair.ts";
import {
  MAX_EVENT_DATA_BYTES,
  MAX_NET_FRAME_BYTES,
  MAX_TAP_NAME_BYTES,
  MIN_NET_FRAME_BYTES,
} from "../../txn/wire.ts";
import fc from "fast-check";
import { WireError } from "../../errors.ts";
import { encodeDiskQuery } from "./disk_digest.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { SecondaryTaps } from "./secondary_taps.ts";
import {
  decodeTapEvent,
  decodeTapInput,
  type DiskMode,
  encodeTapEvent,
  encodeTapInput,
  INPUT_BYTES_PER_EPOCH,
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
const packet = (first: number): TapEvent => {
  return { kind: "packet", tap: "n", frame: new Uint8Array(MIN_NET_FRAME_BYTES).fill(first) };
};
const named = (mode: DiskMode): TapEvent => ({ kind: "disk", tap: "d", sizeBytes: 16, mode });

/** A secondary whose session has not named its disk. */
function bareTaps(mode: DiskMode = "replicated") {
  const disk = new FakeDisk(16);
  const copy = mode === "replicated" ? disk : undefined;
  return {
    disk,
    taps: new SecondaryTaps(new Map([["d", { mode, sizeBytes: 16, copy }]]), new Set(["n"])),
  };
}

/** One whose open transaction has named it. */
function taps(mode: DiskMode = "replicated") {
  const made = bareTaps(mode);
  stage(made.taps, named(mode));
  return made;
}

function stage(replica: SecondaryTaps, ...events: TapEvent[]): void {
  for (const event of events) replica.stage(payload(event), 0);
}

Deno.test("every event survives its encoding", () => {
  const bytes = fc.uint8Array({ minLength: 1, maxLength: 64 });
  const frame = fc.uint8Array({ minLength: MIN_NET_FRAME_BYTES, maxLength: 64 });
  const size = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
  const tap = fc.string({ minLength: 1, maxLength: 20 });
  const event: fc.Arbitrary<TapEvent> = fc.oneof(
    fc.record({ kind: fc.constant("packet" as const), tap, frame }),
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
  stage(replica, write(0, 1), packet(1));
  replica.commit(1);
  // The link is lost, the primary writes the 1 and then other things by itself, and is back.
  replica.sessionBegins();
  assert.deepEqual(replica.incomplete, ["d"], "the image is ahead of what is committed here");
  stage(replica, named("shared"), write(3, 4));
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
  replica.commit(1);
  assert.deepEqual(replica.incomplete, ["d"]);
  stage(replica, { kind: "copied", tap: "d" });
  assert.deepEqual(replica.incomplete, ["d"]);
  replica.commit(2);
  assert.deepEqual(replica.incomplete, []);
});

/** Bytes that may stand behind the name, at the least and at the most. */
const REST: readonly (readonly [string, number, number, number])[] = [
  ["packet", 1, MIN_NET_FRAME_BYTES, MAX_NET_FRAME_BYTES],
  ["write", 2, 9, 8 + MAX_EVENT_DATA_BYTES],
  ["zero", 3, 16, 16],
  ["copy", 4, 9, 8 + MAX_EVENT_DATA_BYTES],
  ["disk", 5, 9, 9],
  ["copied", 6, 0, 0],
];
for (const [name, kind, least, most] of REST) {
  Deno.test(`a ${name} is refused that is shorter, or longer, than it can be`, () => {
    for (const nameBytes of [1, MAX_TAP_NAME_BYTES]) {
      const decode = (restBytes: number) => {
        const bytes = new Uint8Array(2 + nameBytes + restBytes);
        bytes.set([kind, nameBytes]);
        bytes.fill(0x64, 2, 2 + nameBytes);
        // A zero is of one byte at the least.
        if (kind === 3) bytes[bytes.length - 1] = 1;
        decodeTapEvent(bytes, 7);
      };
      for (const restBytes of [least, most]) decode(restBytes);
      for (const restBytes of [least - 1, most + 1]) {
        if (restBytes < 0) continue;
        assert.throws(() => decode(restBytes), wireFault("bad-length", new RegExp(`a ${name} of`)));
      }
    }
  });
}

Deno.test("an event's tap has a name, of at most 64 bytes", () => {
  for (const nameBytes of [0, MAX_TAP_NAME_BYTES + 1]) {
    const bytes = Uint8Array.of(6, nameBytes, ...new Uint8Array(nameBytes).fill(0x64));
    assert.throws(() => decodeTapEvent(bytes, 7), /without a tap's name/);
  }
});

/** What a session has said of its disk, and what it cannot say then. */
const ORDER: readonly (readonly [string, readonly (TapEvent | "commit")[], TapEvent, RegExp])[] = [
  ["a write to a disk that was not named", [], write(0, 1), /disk d was not named/],
  ["the end of a copy of one", [], { kind: "copied", tap: "d" }, /disk d was not named/],
  ["a disk twice in a transaction", [named("replicated")], named("replicated"), /a second time/],
  [
    "a disk twice in a session",
    [named("replicated"), "commit"],
    named("replicated"),
    /a second time/,
  ],
  ["a disk in a later transaction", ["commit"], named("replicated"), /behind the session's first/],
  [
    "a copy that ends twice in a transaction",
    [named("replicated"), { kind: "copied", tap: "d" }],
    { kind: "copied", tap: "d" },
    /complete a second time/,
  ],
  [
    "a copy that ends twice in a session",
    [named("replicated"), { kind: "copied", tap: "d" }, "commit"],
    { kind: "copied", tap: "d" },
    /complete a second time/,
  ],
];
for (const [of, before, event, message] of ORDER) {
  Deno.test(`${of} is refused, and taken in another session`, () => {
    const { taps: replica } = bareTaps();
    let transaction = 0;
    for (const each of before) {
      if (each === "commit") replica.commit(++transaction);
      else stage(replica, each);
    }
    assert.throws(() => stage(replica, event), wireFault("bad-order", message));
    replica.abort();
    replica.sessionBegins();
    if (event.kind !== "disk") stage(replica, named("replicated"));
    stage(replica, event);
    replica.commit(++transaction);
  });
}

Deno.test("what a cancelled transaction has said of a disk may be said again", () => {
  const { taps: replica } = taps();
  stage(replica, { kind: "copied", tap: "d" });
  replica.abort();
  stage(replica, named("replicated"), { kind: "copied", tap: "d" });
  replica.commit(1);
  assert.deepEqual(replica.incomplete, []);
});

Deno.test("all queries of a session have one seed, and another session may have another", () => {
  const { taps: replica } = bareTaps();
  const ask = (seedLow: number, seedHigh: number) => {
    const range = { chunkBytes: 4096, offset: 0, lengthBytes: 16 };
    return replica.diskQuery(encodeDiskQuery({ tap: "d", seedLow, seedHigh, ...range }), 0);
  };
  ask(1, 2);
  ask(1, 2);
  for (const [low, high] of [[2, 2], [1, 1], [2, 1]]) {
    assert.throws(() => ask(low, high), wireFault("bad-value", /another seed/));
  }
  replica.sessionBegins();
  ask(2, 1);
});

Deno.test("a shared disk is not copied", () => {
  const copy: TapEvent = { kind: "copy", tap: "d", offset: 0, data: Uint8Array.of(1) };
  for (const event of [copy, { kind: "copied", tap: "d" } as const]) {
    const { taps: replica } = taps("shared");
    assert.throws(() => stage(replica, event), wireFault("bad-value", /disk d, which is shared/));
  }
});

const REFUSED: readonly (readonly [string, TapEvent, RegExp])[] = [
  ["an unknown disk", { ...write(0, 1), tap: "other" } as TapEvent, /disk tap other/],
  ["an unknown net", { ...packet(1), tap: "other" } as TapEvent, /net tap other/],
  ["a write beyond the end", write(15, 1, 2), /a write up to 17 of disk d, which has 16/],
  [
    "a zero that goes on beyond all numbers",
    { kind: "zero", tap: "d", offset: 8, lengthBytes: Number.MAX_SAFE_INTEGER },
    /a zero up to 9007199254740999 of disk d, which has 16/,
  ],
  [
    "a copy far behind the end",
    { kind: "copy", tap: "d", offset: Number.MAX_SAFE_INTEGER, data: Uint8Array.of(1) },
    /a copy up to 9007199254740992 of disk d/,
  ],
  [
    "a zero of no bytes",
    { kind: "zero", tap: "d", offset: 0, lengthBytes: 0 },
    /a zero of d that zeroes nothing/,
  ],
  ["a write of no bytes", write(0), /a write of d with 8 bytes behind the name/],
  ["another mode", { kind: "disk", tap: "d", sizeBytes: 16, mode: "shared" }, /shared at the/],
  ["another size", { kind: "disk", tap: "d", sizeBytes: 17, mode: "replicated" }, /17 bytes/],
];
for (const [of, event, message] of REFUSED) {
  Deno.test(`${of} is refused before anything is staged`, () => {
    const { taps: replica } = taps();
    const { stagedBytes } = replica;
    assert.throws(() => stage(replica, event), message);
    assert.equal(replica.stagedBytes, stagedBytes);
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
  const frame = fc.uint8Array({ minLength: MIN_NET_FRAME_BYTES, maxLength: 2000 });
  const tap = fc.string({ minLength: 1, maxLength: 20 });
  fc.assert(fc.property(fc.record({ tap, frame }), (each) => {
    assert.deepEqual(decodeTapInput(join(encodeTapInput(each)), 0), { ...each });
  }));
  for (const bytes of [[], [1], [0, ...new Uint8Array(20)], [65, ...new Uint8Array(100)]]) {
    assert.throws(() => decodeTapInput(Uint8Array.from(bytes), 7), /tap's name/);
  }
  for (const length of [0, 13, MAX_NET_FRAME_BYTES + 1]) {
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
