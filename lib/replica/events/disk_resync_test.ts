import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../../errors.ts";
import {
  decodeDigestRun,
  decodeDiskQuery,
  digestDisk,
  type DiskQuery,
  encodeDigestRun,
  encodeDiskQuery,
} from "./disk_digest.ts";
import { partsAtOnce } from "../testing/parts_at_once.ts";
import { DiskResync, RESYNC_CHUNK_BYTES } from "./disk_resync.ts";
import { PrimaryDiskTap } from "./primary_disk_tap.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { createPageDigest } from "../pages/page_digest.ts";
import type { TapEvent } from "./tap_events.ts";

const SIZE = 5 * RESYNC_CHUNK_BYTES + 512;
const SEED = { seedLow: 3, seedHigh: 4 };
const digest = await createPageDigest(SEED.seedLow, SEED.seedHigh);

/** A primary's disk and a secondary's, and what goes between them at once. */
class Pair {
  readonly tap: PrimaryDiskTap;
  readonly resync: DiskResync;
  sent: TapEvent[] = [];

  constructor(readonly ours: FakeDisk, readonly theirs: FakeDisk) {
    this.tap = new PrimaryDiskTap("d", "replicated", ours);
    this.resync = new DiskResync(this.tap, ours);
    this.tap.start();
    this.tap.takeEvents();
    this.resync.reset();
    this.resync.begin({ kind: "compare", ...SEED, digest });
  }

  /** Lets the secondary answer all that is asked. */
  answer(): void {
    for (;;) {
      let query: Uint8Array | undefined;
      this.resync.takeQuery((taken) => query = taken);
      if (query === undefined) return;
      const answer = digestDisk(this.theirs, decodeDiskQuery(query, 0), digest);
      for (const part of partsAtOnce(answer)) {
        if (part !== undefined) this.resync.receive(part.payload, part.last);
      }
    }
  }

  apply(): void {
    for (const event of this.tap.takeEvents()) {
      this.sent.push(event);
      if (event.kind === "write" || event.kind === "copy") {
        this.theirs.write(event.offset, event.data);
      } else if (event.kind === "zero") this.theirs.zero(event.offset, event.lengthBytes);
    }
  }

  finish(): void {
    while (!this.resync.done) {
      this.answer();
      this.resync.step(RESYNC_CHUNK_BYTES);
      this.apply();
    }
    this.apply();
  }
}

function noise(seed: number, lengthBytes: number): Uint8Array {
  const bytes = new Uint8Array(lengthBytes);
  let state = seed * 2654435761 >>> 0 || 1;
  for (let i = 0; i < lengthBytes; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
  return bytes;
}

Deno.test("two empty disks are compared without a byte read or sent", () => {
  const pair = new Pair(new FakeDisk(SIZE), new FakeDisk(SIZE));
  pair.finish();
  assert.deepEqual([pair.ours.readBytes, pair.theirs.readBytes], [0, 0]);
  assert.deepEqual(pair.sent, [{ kind: "copied", tap: "d" }]);
  assert.deepEqual(pair.resync.progress, { doneBytes: SIZE, equalBytes: SIZE, sentBytes: 0 });
});

Deno.test("of two disks that differ in one chunk, that one is sent", () => {
  const content = noise(1, SIZE);
  const pair = new Pair(new FakeDisk(content), new FakeDisk(content));
  pair.ours.bytes[2 * RESYNC_CHUNK_BYTES + 7] ^= 1;
  pair.finish();
  assert.deepEqual(pair.theirs.bytes, pair.ours.bytes);
  assert.deepEqual(pair.sent.map(({ kind }) => kind), ["copy", "copied"]);
  assert.equal(pair.resync.progress.sentBytes, RESYNC_CHUNK_BYTES);
});

Deno.test("a copy that was interrupted goes on with what is missing", () => {
  const content = noise(2, SIZE);
  const theirs = new FakeDisk(SIZE);
  const first = new Pair(new FakeDisk(content), theirs);
  first.answer();
  first.resync.step(2 * RESYNC_CHUNK_BYTES);
  first.apply();
  assert.equal(first.resync.progress.sentBytes, 2 * RESYNC_CHUNK_BYTES);
  const second = new Pair(new FakeDisk(content), theirs);
  second.finish();
  assert.deepEqual(theirs.bytes, content);
  assert.equal(second.resync.progress.sentBytes, SIZE - 2 * RESYNC_CHUNK_BYTES);
});

Deno.test("what is zero here and not there is sent as zeros, not as data", () => {
  const pair = new Pair(new FakeDisk(SIZE), new FakeDisk(noise(3, SIZE)));
  pair.finish();
  assert.deepEqual(pair.theirs.bytes, new Uint8Array(SIZE));
  assert.equal(pair.resync.progress.sentBytes, 0);
  assert.ok(pair.sent.every(({ kind }) => kind === "zero" || kind === "copied"));
});

Deno.test("what the guest writes behind the place that is compared does not travel twice", () => {
  const pair = new Pair(new FakeDisk(noise(4, SIZE)), new FakeDisk(SIZE));
  pair.answer();
  pair.resync.step(RESYNC_CHUNK_BYTES);
  pair.apply();
  pair.sent = [];
  pair.tap.write(RESYNC_CHUNK_BYTES - 2, Uint8Array.of(1, 2, 3, 4));
  pair.tap.zero(3 * RESYNC_CHUNK_BYTES, 100);
  pair.apply();
  assert.deepEqual(pair.sent, [
    { kind: "write", tap: "d", offset: RESYNC_CHUNK_BYTES - 2, data: Uint8Array.of(1, 2) },
  ]);
  pair.finish();
  assert.deepEqual(pair.theirs.bytes, pair.ours.bytes);
});

Deno.test("whatever both hold and the guest writes meanwhile, the copies end equal", () => {
  const write = fc.record({
    offset: fc.nat(SIZE - 1),
    lengthBytes: fc.integer({ min: 1, max: 2 * RESYNC_CHUNK_BYTES }),
    zero: fc.boolean(),
    seed: fc.nat(1000),
  });
  /** Each turn: writes before the step, whether answers and events get through. */
  const turn = fc.record({
    writes: fc.array(write, { maxLength: 2 }),
    answer: fc.boolean(),
    apply: fc.boolean(),
  });
  const differences = fc.array(write, { maxLength: 4 });
  fc.assert(
    fc.property(differences, differences, fc.array(turn), (before, after, turns) => {
      const put = (
        disk: FakeDisk | PrimaryDiskTap,
        { offset, lengthBytes, zero, seed }: typeof each,
      ) => {
        const length = Math.min(lengthBytes, SIZE - offset);
        if (zero) disk.zero(offset, length);
        else disk.write(offset, noise(seed, length));
      };
      let each!: (typeof before)[number];
      const ours = new FakeDisk(SIZE);
      const theirs = new FakeDisk(SIZE);
      for (each of before) for (const disk of [ours, theirs]) put(disk, each);
      for (each of after) put(each.seed % 2 === 0 ? ours : theirs, each);
      const pair = new Pair(ours, theirs);
      for (const { writes, answer, apply } of turns) {
        for (each of writes) put(pair.tap, each);
        if (answer) pair.answer();
        pair.resync.step(RESYNC_CHUNK_BYTES);
        if (apply) pair.apply();
      }
      pair.finish();
      assert.deepEqual(theirs.bytes, ours.bytes);
    }),
    { numRuns: 60 },
  );
});

const QUERY: DiskQuery = {
  tap: "disk0",
  ...SEED,
  chunkBytes: 4096,
  offset: 8192,
  lengthBytes: 12288,
};

Deno.test("a query survives its encoding, and is refused when cut or odd", () => {
  const whole = encodeDiskQuery(QUERY);
  assert.deepEqual(decodeDiskQuery(whole, 0), QUERY);
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => decodeDiskQuery(whole.subarray(0, length), 0), WireError);
  }
  for (
    const odd of [
      { chunkBytes: 2048 },
      { chunkBytes: 6144 },
      { chunkBytes: 2 ** 21 },
      { offset: 100 },
      { lengthBytes: 0 },
      { offset: 2 ** 53 - 4096, lengthBytes: 8192 },
      { tap: "x".repeat(65) },
    ]
  ) {
    const payload = encodeDiskQuery({ ...QUERY, ...odd });
    assert.throws(() => decodeDiskQuery(payload, 0), WireError, JSON.stringify(odd));
  }
});

Deno.test("an answer survives its encoding, and is refused where it does not fit the question", () => {
  const run = { offset: 8192, zeroBytes: 4096, digests: new Uint8Array(32).fill(7) };
  const end = 8192 + 12288;
  const payload = encodeDigestRun(run);
  assert.deepEqual(decodeDigestRun(payload, 4096, 8192, end), run);
  for (let length = 0; length < payload.length; length++) {
    if (length === 16 || length === 32) continue;
    const cut = payload.subarray(0, length);
    assert.throws(() => decodeDigestRun(cut, 4096, 8192, end), WireError, `${length}`);
  }
  assert.throws(() => decodeDigestRun(payload, 4096, 4096, end), /awaited was 4096/);
  assert.throws(() => decodeDigestRun(payload, 4096, 8192, end - 4096), /too many/);
  const odd = encodeDigestRun({ ...run, zeroBytes: 100 });
  assert.throws(() => decodeDigestRun(odd, 4096, 8192, end), /inside a chunk/);
  const long = encodeDigestRun({ ...run, zeroBytes: 2 ** 40 });
  assert.throws(() => decodeDigestRun(long, 4096, 8192, end), /beyond/);
});

Deno.test("an answer that does not get on, or ends too early or too late, is refused", () => {
  const nothing = encodeDigestRun({ offset: 0, zeroBytes: 0, digests: new Uint8Array(0) });
  const part = encodeDigestRun({
    offset: 0,
    zeroBytes: RESYNC_CHUNK_BYTES,
    digests: new Uint8Array(0),
  });
  const all = encodeDigestRun({ offset: 0, zeroBytes: SIZE, digests: new Uint8Array(0) });
  for (
    const [payload, last, message] of [
      [nothing, false, /without content/],
      [part, true, /the last one, and not at/],
      [all, false, /without an end/],
    ] as const
  ) {
    const pair = new Pair(new FakeDisk(SIZE), new FakeDisk(SIZE));
    pair.resync.takeQuery(() => {});
    assert.throws(() => pair.resync.receive(payload, last), message);
  }
});

Deno.test("mutated answers are refused or taken, never anything else", () => {
  const payload = encodeDigestRun({
    offset: 0,
    zeroBytes: RESYNC_CHUNK_BYTES,
    digests: new Uint8Array(48),
  });
  fc.assert(
    fc.property(fc.nat(payload.length - 1), fc.nat(255), fc.boolean(), (at, to, last) => {
      const pair = new Pair(new FakeDisk(noise(5, SIZE)), new FakeDisk(SIZE));
      pair.resync.takeQuery(() => {});
      const mutated = payload.slice();
      mutated[at] = to;
      try {
        pair.resync.receive(mutated, last);
      } catch (error) {
        assert.ok(error instanceof WireError, `${error}`);
      }
    }),
    { numRuns: 200 },
  );
});
