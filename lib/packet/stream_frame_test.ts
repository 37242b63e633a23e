import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError, type WireFault } from "../errors.ts";
import { MAX_FRAME_BYTES, MIN_FRAME_BYTES, StreamFrameDecoder } from "./stream_frame.ts";
import { encodeFrame } from "./testing/encode_frame.ts";

const frames = fc.array(
  fc.oneof(
    fc.uint8Array({ minLength: MIN_FRAME_BYTES, maxLength: 200 }),
    fc.uint8Array({ minLength: 1500, maxLength: 1514 }),
  ),
  { maxLength: 12 },
);

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}

/** Decodes `bytes` cut at `cuts`; frames are copied, since views do not last. */
function decode(
  bytes: Uint8Array,
  cuts: readonly number[] = [],
  decoder = new StreamFrameDecoder(),
) {
  const found: Uint8Array[] = [];
  const ends = [...cuts, bytes.length].sort((a, b) => a - b);
  let start = 0;
  for (const end of ends) {
    // A buffer that is reused at once shows views that outlive their call.
    const piece = bytes.slice(start, end);
    decoder.receive(piece, 0, piece.length, (frame) => found.push(frame.slice()));
    piece.fill(0xee);
    start = end;
  }
  return found;
}

Deno.test("frames come out as they went in, cut at every single point", () => {
  const sent = [
    new Uint8Array(14).fill(1),
    new Uint8Array(60).fill(2),
    new Uint8Array(301).fill(3),
  ];
  const bytes = concat(sent.map(encodeFrame));
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(decode(bytes, [cut]), sent, `cut at ${cut}`);
  }
  assert.deepEqual(decode(bytes, Array.from(bytes, (_, i) => i)), sent);
});

Deno.test("frames come out as they went in, for any frames and cuts", () => {
  fc.assert(fc.property(frames, fc.array(fc.nat()), (sent, cuts) => {
    const bytes = concat(sent.map(encodeFrame));
    const decoder = new StreamFrameDecoder();
    assert.deepEqual(decode(bytes, cuts.map((cut) => cut % (bytes.length + 1)), decoder), sent);
    assert.equal(decoder.frames, sent.length);
    decoder.end();
  }));
});

Deno.test("an end inside a frame is truncated, at every prefix", () => {
  const first = encodeFrame(new Uint8Array(20));
  const bytes = concat([first, encodeFrame(new Uint8Array(30))]);
  for (let end = 0; end <= bytes.length; end++) {
    const decoder = new StreamFrameDecoder();
    decode(bytes.subarray(0, end), [], decoder);
    if (end === 0 || end === first.length || end === bytes.length) decoder.end();
    else {
      const offset = end < first.length ? 0 : first.length;
      assert.throws(
        () => decoder.end(),
        (error) =>
          error instanceof WireError && error.fault === "truncated" && error.offset === offset,
      );
    }
  }
});

Deno.test("a lying length is refused before room is made for it", () => {
  const lies: [number, WireFault][] = [
    [0, "bad-length"],
    [MIN_FRAME_BYTES - 1, "bad-length"],
    [MAX_FRAME_BYTES + 1, "too-large"],
    [0x7fffffff, "too-large"],
    [0xffffffff, "too-large"],
  ];
  for (const [length, fault] of lies) {
    const good = encodeFrame(new Uint8Array(64));
    const header = new Uint8Array(4);
    new DataView(header.buffer).setUint32(0, length);
    const decoder = new StreamFrameDecoder();
    assert.equal(decode(good, [], decoder).length, 1);
    assert.throws(
      () => decode(header, [1], decoder),
      (error) =>
        error instanceof WireError && error.protocol === "packet" && error.fault === fault &&
        error.offset === good.length && error.message.includes(`${length} bytes`),
    );
    assert.ok(decoder.pendingBytes <= 4);
  }
});

Deno.test("the longest frame passes, and a smaller limit holds", () => {
  const longest = new Uint8Array(MAX_FRAME_BYTES).fill(9);
  assert.deepEqual(decode(encodeFrame(longest), [5, 40000]), [longest]);
  const small = () => new StreamFrameDecoder(1514);
  assert.equal(decode(encodeFrame(new Uint8Array(1514)), [], small()).length, 1);
  assert.throws(() => decode(encodeFrame(new Uint8Array(1515)), [], small()), WireError);
});

Deno.test("mutated streams give frames within the bounds or a WireError, never more", () => {
  const valid = fc.array(fc.uint8Array({ minLength: 14, maxLength: 40 }), { minLength: 1 });
  fc.assert(
    fc.property(valid, fc.nat(), fc.nat(255), fc.nat(), (sent, place, value, cut) => {
      const bytes = concat(sent.map(encodeFrame));
      bytes[place % bytes.length] = value;
      try {
        for (const frame of decode(bytes, [cut % bytes.length])) {
          assert.ok(frame.length >= MIN_FRAME_BYTES && frame.length <= MAX_FRAME_BYTES);
        }
      } catch (error) {
        assert.ok(error instanceof WireError, String(error));
      }
    }),
    { seed: 7, numRuns: 500 },
  );
});
