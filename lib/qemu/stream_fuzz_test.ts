import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../lab/recording/streams.ts";
import { Carry } from "../bytes/carry.ts";
import { WireError } from "../errors.ts";
import { StreamParser } from "./stream_parser.ts";
import { checkpoint, concat, FoundLog, fullStream, PING } from "./testing/synthetic_stream.ts";
import { LIMITS } from "./wire.ts";

/** A change to make: where, as a share of the stream; how; and with which bytes. */
interface Mutation {
  readonly share: number;
  readonly how: "set" | "insert" | "remove" | "repeat" | "cut";
  readonly bytes: Uint8Array;
}

const mutations = fc.array(
  fc.record({
    // Not fc.double: nearly all of its values are next to nothing.
    share: fc.nat(99_999).map((n) => n / 100_000),
    how: fc.constantFrom<Mutation["how"]>("set", "set", "set", "insert", "remove", "repeat", "cut"),
    bytes: fc.oneof(
      fc.uint8Array({ minLength: 1, maxLength: 8 }),
      fc.constantFrom(...[0, 0x7f, 0x80, 0xff].map((byte) => new Uint8Array(8).fill(byte))),
    ),
  }),
  { minLength: 1, maxLength: 3 },
);

function mutate(stream: Uint8Array, list: readonly Mutation[]): Uint8Array {
  for (const { share, how, bytes } of list) {
    const at = Math.floor(share * stream.length);
    const [before, behind] = [stream.subarray(0, at), stream.subarray(at)];
    switch (how) {
      case "set":
        stream = concat(before, bytes, behind.subarray(Math.min(bytes.length, behind.length)));
        break;
      case "insert":
        stream = concat(before, bytes, behind);
        break;
      case "remove":
        stream = concat(before, behind.subarray(bytes.length));
        break;
      case "repeat":
        stream = concat(before, behind.subarray(0, 100), behind);
        break;
      case "cut":
        stream = before;
    }
  }
  return stream;
}

/** Parses in two pieces; a {@link WireError} is an outcome, anything else is not. */
function survives(stream: Uint8Array, pieceBytes: number): "parsed" | "refused" {
  const parser = new StreamParser(new FoundLog());
  const carry = new Carry();
  try {
    for (let at = 0; at < stream.length; at += pieceBytes) {
      carry.feed(stream, at, Math.min(stream.length, at + pieceBytes), (bytes, start, end) => {
        return parser.parse(bytes, start, end);
      });
      assert.ok(carry.pendingBytes <= 300 * LIMITS.blocks, "the carried record is bounded");
    }
    parser.finish(carry.pendingBytes);
    return "parsed";
  } catch (error) {
    assert.ok(error instanceof WireError, `${(error as Error).stack}`);
    assert.ok(error.offset >= 0 && error.offset <= stream.length, `${error}`);
    return "refused";
  }
}

Deno.test("a mutated small stream parses or is refused, with nothing between", () => {
  const toy = concat(fullStream(1, [PING]), checkpoint(9), checkpoint(20));
  const outcomes = { parsed: 0, refused: 0 };
  const property = fc.property(mutations, fc.integer({ min: 1, max: 3000 }), (list, pieceBytes) => {
    outcomes[survives(mutate(toy, list), pieceBytes)]++;
  });
  fc.assert(property, { numRuns: 3000, seed: 4000 });
  // Most bytes of a stream are pages, so both outcomes must have come up.
  assert.ok(outcomes.parsed > 100 && outcomes.refused > 100, JSON.stringify(outcomes));
});

Deno.test("a mutated recorded stream parses or is refused, with nothing between", () => {
  for (const { name } of listStreams()) {
    const stream = loadStream(name);
    // All of what is structure, and a little of the rest: pages make up nearly all of a recording.
    const tailShare = 1 - Math.min(60_000, stream.length) / stream.length;
    const property = fc.property(mutations, fc.boolean(), (list, tail) => {
      const placed = tail
        ? list.map((each) => ({ ...each, share: tailShare + each.share * (1 - tailShare) }))
        : list;
      survives(mutate(stream, placed), 65_536);
    });
    fc.assert(property, { numRuns: 12, seed: 4001 });
  }
});

Deno.test("bytes that are no stream at all are refused at once", () => {
  const property = fc.property(fc.uint8Array({ minLength: 4, maxLength: 200 }), (bytes) => {
    fc.pre(bytes[0] !== 0x51);
    assert.equal(survives(bytes, 7), "refused");
  });
  fc.assert(property, { numRuns: 300, seed: 4002 });
});
