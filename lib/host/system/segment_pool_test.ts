import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { type Segment, SegmentPool } from "./segment_pool.ts";

/** Bytes that were sent from a segment and may still wait to be written. */
interface Sent {
  readonly segment: Segment;
  readonly from: number;
  readonly to: number;
  readonly crc: number;
  /** Output's byte count at which they have been written. */
  readonly until: number;
}

Deno.test("memory that is held, or waits to be written, is never handed out or moved over", () => {
  // Not fc.double: nearly all of its values are next to nothing.
  const fraction = fc.nat(100).map((percent) => percent / 100);
  const step = fc.record({
    /** Part of the room that a read fills. */
    read: fc.oneof(fc.constant(1), fraction),
    /** Bytes that the parser leaves; always less than a record. */
    leave: fc.oneof(fc.constant(0), fc.nat(300_000)),
    /** Part of what is pending that gets written. */
    write: fc.oneof(fc.constant(1), fraction),
    /** Whether what has been taken is not sent yet. */
    hold: fc.nat(3).map((n) => n > 0),
  });
  const property = fc.property(fc.array(step, { maxLength: 60, size: "max" }), (steps) => {
    const pool = new SegmentPool();
    let queued = 0;
    let written = 0;
    let sent: Sent[] = [];
    let held: Omit<Sent, "until">[] = [];
    let unparsedCrc = 0;
    let unparsedBytes = 0;
    let counter = 0;
    for (const { read, leave, write, hold } of steps) {
      const segment = pool.writable(written, written === queued);
      assert.equal(pool.current, segment);
      const room = segment.bytes.length - segment.end;
      assert.ok(room >= 256 * 1024, `${room} bytes of room`);
      assert.equal(segment.end - segment.start, unparsedBytes);
      assert.equal(crc32(segment.bytes.subarray(segment.start, segment.end)), unparsedCrc);

      const count = Math.floor(read * room);
      const fresh = segment.bytes.subarray(segment.end, segment.end + count);
      for (let at = 0; at < count; at += 4096) fresh.fill(++counter, at, at + 4096);
      segment.end += count;
      for (const { segment: from, crc, ...piece } of [...sent, ...held]) {
        assert.equal(crc32(from.bytes.subarray(piece.from, piece.to)), crc, "overwritten");
      }

      const taken = Math.max(0, segment.end - segment.start - leave);
      if (taken > 0) {
        const [from, to] = [segment.start, segment.start + taken];
        held.push({ segment, from, to, crc: crc32(segment.bytes.subarray(from, to)) });
        segment.start = to;
      }
      if (hold) pool.hold();
      else {
        for (const piece of held) {
          queued += piece.to - piece.from;
          sent.push({ ...piece, until: queued });
        }
        held = [];
      }
      written += Math.floor(write * (queued - written));
      if (!hold) pool.unhold(queued);
      if (written < queued) pool.pin(queued);
      sent = sent.filter(({ until }) => until > written);
      unparsedBytes = segment.end - segment.start;
      unparsedCrc = crc32(segment.bytes.subarray(segment.start, segment.end));
    }
  });
  fc.assert(property, { numRuns: 100, seed: 42 });
});

Deno.test("one segment is enough while everything gets written", () => {
  const pool = new SegmentPool();
  const first = pool.current;
  for (let i = 0; i < 50; i++) {
    const segment = pool.writable(i, true);
    assert.equal(segment, first);
    segment.end += 200_000;
    segment.start = segment.end - 10;
  }
});

Deno.test("what is held stays, though output from before it waits in the same segment", () => {
  const pool = new SegmentPool();
  const fill = (segment: Segment) => {
    segment.start = segment.end = segment.bytes.length;
    pool.hold();
    return segment;
  };
  const first = fill(pool.current);
  pool.pin(100);
  const second = fill(pool.writable(0, false));
  const third = fill(pool.writable(100, true));
  assert.equal(new Set([first, second, third]).size, 3);
  pool.unhold(300);
  assert.equal(pool.writable(300, false), third);
  assert.equal(third.end, 0);
});

Deno.test("what a slow peer has made necessary is let go of when it has caught up", () => {
  const pool = new SegmentPool();
  let queued = 0;
  for (let i = 0; i < 40; i++) {
    const segment = pool.writable(0, false);
    queued += segment.bytes.length - segment.end;
    segment.start = segment.end = segment.bytes.length;
    pool.pin(queued);
  }
  assert.equal(pool.size, 40);
  pool.hold();
  pool.writable(queued, true);
  assert.ok(pool.size >= 40, "what is held stays");
  pool.unhold(queued);
  const segment = pool.writable(queued, true);
  assert.equal(pool.size, 4);
  assert.equal(pool.current, segment);
});
