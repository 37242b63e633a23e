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

Deno.test("memory that waits to be written is never handed out or moved over", () => {
  const step = fc.record({
    /** Part of the room that a read fills. */
    read: fc.double({ min: 0, max: 1, noNaN: true }),
    /** Bytes that the parser leaves; always less than a record. */
    leave: fc.oneof(fc.constant(0), fc.nat(300_000)),
    /** Part of what is pending that gets written. */
    write: fc.oneof(fc.constant(1), fc.double({ min: 0, max: 1, noNaN: true })),
  });
  const property = fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const pool = new SegmentPool();
    let queued = 0;
    let written = 0;
    let sent: Sent[] = [];
    let unparsedCrc = 0;
    let unparsedBytes = 0;
    let counter = 0;
    for (const { read, leave, write } of steps) {
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
      for (const { segment: from, crc, ...piece } of sent) {
        assert.equal(crc32(from.bytes.subarray(piece.from, piece.to)), crc, "overwritten");
      }

      const taken = Math.max(0, segment.end - segment.start - leave);
      if (taken > 0) {
        const [from, to] = [segment.start, segment.start + taken];
        queued += taken;
        sent.push({
          segment,
          from,
          to,
          crc: crc32(segment.bytes.subarray(from, to)),
          until: queued,
        });
        segment.start = to;
      }
      written += Math.floor(write * (queued - written));
      if (written < queued) pool.pin(queued);
      sent = sent.filter(({ until }) => until > written);
      unparsedBytes = segment.end - segment.start;
      unparsedCrc = crc32(segment.bytes.subarray(segment.start, segment.end));
    }
  });
  fc.assert(property, { numRuns: 40, seed: 42 });
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
