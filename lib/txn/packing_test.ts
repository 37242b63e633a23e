import assert from "node:assert/strict";
import { constants, crc32, createZstdCompress } from "node:zlib";
import fc from "fast-check";
import { Carry } from "../bytes/carry.ts";
import { KemariError, WireError, type WireFault } from "../errors.ts";
import { FrameDecoder } from "./frame_decoder.ts";
import type { FrameVisitor } from "./frame_visitor.ts";
import { FramePacker, MAX_BATCH_PAYLOAD_BYTES } from "./packing.ts";
import { Desk, Link, OPTIONS, wireFault } from "./testing/session_pair.ts";
import { TxnReceiver } from "./receiver.ts";
import { TxnSender } from "./sender.ts";
import { encodeHello, FEATURE, PROTOCOL_VERSION } from "./hello.ts";
import { encodeHeader } from "./frame_header.ts";
import { HEADER_BYTES, MAX_PACKED_BYTES, TXN } from "./wire.ts";
import { compressBound, WINDOW_LOG, ZstdCompressor, ZstdDecompressor } from "./zstd_context.ts";

/** What a decoder hands on: frames with their payload joined, whatever pieces they come in. */
class Seen implements FrameVisitor {
  readonly isOver = false;
  check(): void {}
  readonly frames: string[] = [];
  #payload: number[] = [];
  #header = "";
  streamed(header: { command: number; sequence: number; lengthBytes: number }): void {
    this.#header = `${header.command} ${header.sequence}`;
    this.#payload = [];
    if (header.lengthBytes === 0) this.frames.push(`${this.#header}: `);
  }
  piece(bytes: Uint8Array, at: number, end: number): void {
    this.#payload.push(...bytes.subarray(at, end));
    this.#pending = `${this.#header}: ${this.#payload}`;
  }
  frame(header: { command: number; sequence: number }, payload: Uint8Array): void {
    this.take();
    this.frames.push(`${header.command} ${header.sequence}: ${payload}`);
  }
  #pending: string | undefined;
  /** Notes a streamed frame that is complete. */
  take(): string[] {
    if (this.#pending !== undefined) this.frames.push(this.#pending);
    this.#pending = undefined;
    return this.frames;
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

function frame(command: number, sequence: number, payload: Uint8Array): Uint8Array[] {
  const header = { command, flags: 0, sequence, transaction: 7, lengthBytes: payload.length };
  return [encodeHeader(header), payload];
}

/** One PACKED frame around bytes that are compressed as they are. */
function packed(content: Uint8Array, claimed = content.length): Uint8Array {
  const body = new Uint8Array(compressBound(content.length));
  const end = new ZstdCompressor(1).compress(content, content.length, body, 0);
  return packedAround(body.subarray(0, end), claimed);
}

function packedAround(zstd: Uint8Array, claimed: number): Uint8Array {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, claimed);
  const header = encodeHeader({
    command: TXN.PACKED,
    flags: 0,
    sequence: 0,
    transaction: 0,
    lengthBytes: 4 + zstd.length,
  });
  return joined([header, length, zstd]);
}

/** Lengths only matter to a batch, so long payloads are of one byte's value. */
const payload = fc.oneof(
  fc.uint8Array({ maxLength: 60 }),
  fc.tuple(fc.integer({ min: 0, max: MAX_BATCH_PAYLOAD_BYTES + 10 }), fc.nat(255)).map((
    [length, value],
  ) => new Uint8Array(length).fill(value)),
);
const frames = fc.array(
  fc.tuple(fc.constantFrom(TXN.CONTINUE, TXN.CONTINUE, TXN.EVENT, TXN.COMMIT), payload).filter(
    ([command, { length }]) => command !== TXN.EVENT || length >= 3,
  ),
  { maxLength: 12 },
);

Deno.test("packed frames come out as they went in, in any batches and pieces", () => {
  fc.assert(
    fc.property(fc.array(frames, { maxLength: 4 }), fc.integer({ min: 1, max: 9000 }), (
      batches,
      step,
    ) => {
      const packer = new FramePacker(() => 0);
      const decoder = new FrameDecoder(true);
      const seen = new Seen();
      const expected: string[] = [];
      const carry = new Carry();
      for (const batch of batches) {
        const pieces = batch.flatMap(([command, content], i) => {
          const body = command === TXN.COMMIT ? new Uint8Array(12).fill(i) : content;
          const whole = body.length > 0 ? frame(command, i, body) : [frame(command, i, body)[0]];
          expected.push(`${command} ${i}: ${body.length}`);
          return whole;
        });
        const wire = joined(packer.pack(pieces));
        for (let at = 0; at < wire.length; at += step) {
          const piece = wire.slice(at, at + step);
          carry.feed(piece, 0, piece.length, (b, from, to) => {
            const next = decoder.decode(b, from, to, {
              isOver: false,
              check() {},
              streamed(header) {
                seen.frames.push(`${header.command} ${header.sequence}: ${header.lengthBytes}`);
              },
              piece() {},
              frame(header, body) {
                seen.frames.push(`${header.command} ${header.sequence}: ${body.length}`);
              },
            });
            return next;
          });
        }
      }
      decoder.finish(carry.pendingBytes);
      assert.deepEqual(seen.frames, expected);
    }),
    { numRuns: 60, seed: 2 },
  );
});

Deno.test("content survives packing, and the second time costs next to nothing", () => {
  const packer = new FramePacker(() => 0);
  const decoder = new FrameDecoder(true);
  const content = new Uint8Array(30_000).map((_, i) => (i * i) >> 5);
  let before = Infinity;
  for (let round = 0; round < 3; round++) {
    const seen = new Seen();
    const wire = joined(packer.pack(frame(TXN.CONTINUE, round, content)));
    assert.equal(decoder.decode(wire, 0, wire.length, seen), wire.length);
    assert.deepEqual(seen.take(), [`${TXN.CONTINUE} ${round}: ${content}`]);
    if (round > 0) assert.ok(wire.length < before / 20, `${wire.length} after ${before}`);
    else before = wire.length;
  }
});

Deno.test("a PACKED frame that is none is refused by what is wrong with it", () => {
  const inner = joined(frame(TXN.CONTINUE, 1, Uint8Array.of(1, 2, 3)));
  const cases: readonly (readonly [string, Uint8Array, WireFault, RegExp])[] = [
    ["less than a header", packed(inner, 19), "bad-length", /of 19 bytes/],
    ["too much", packed(inner, MAX_PACKED_BYTES + 1), "bad-length", /of 1048577 bytes/],
    ["less than claimed", packed(inner, 24), "bad-value", /not of 24 bytes/],
    ["more than claimed", packed(inner, 22), "bad-value", /not of 22 bytes/],
    ["no zstd", packedAround(new Uint8Array(40).fill(7), 40), "bad-value", /zstd is none/],
    ["a cut frame", packed(inner.slice(0, -1)), "bad-length", /ends inside a frame/],
    ["a cut header", packed(joined([inner, inner.slice(0, 9)])), "bad-length", /inside a frame/],
    [
      "a BEGIN",
      packed(joined(frame(TXN.BEGIN, 0, new Uint8Array(0)))),
      "bad-order",
      /BEGIN inside/,
    ],
    ["a PACKED", packed(packed(inner)), "bad-order", /PACKED inside/],
  ];
  for (const [what, bytes, fault, message] of cases) {
    const decoder = new FrameDecoder(true);
    assert.throws(
      () => decoder.decode(bytes, 0, bytes.length, new Seen()),
      wireFault(fault, message),
      what,
    );
  }
});

Deno.test("a decompression bomb is refused, and nothing but its claim is ever allocated", () => {
  const content = new Uint8Array(64 * 2 ** 20);
  const room = new Uint8Array(compressBound(content.length));
  const bomb = room.subarray(0, new ZstdCompressor(1).compress(content, content.length, room, 0));
  assert.ok(bomb.length < 10_000);
  const bytes = packedAround(bomb, 1000);
  assert.throws(
    () => new FrameDecoder(true).decode(bytes, 0, bytes.length, new Seen()),
    wireFault("bad-value", /not of 1000 bytes/),
  );
  // A window beyond the protocol's would be remembered at our cost.
  const wide = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: WINDOW_LOG + 1 } }) as
    & ReturnType<typeof createZstdCompress>
    & {
      _handle: { writeSync(...of: unknown[]): void };
      _writeState: Uint32Array;
    };
  const out = new Uint8Array(1000);
  wide._handle.writeSync(
    constants.ZSTD_e_flush,
    new Uint8Array(100),
    0,
    100,
    out,
    0,
    out.length,
  );
  const zstd = out.subarray(0, out.length - wide._writeState[0]);
  assert.equal(new ZstdDecompressor().decompress(zstd, 0, zstd.length, out, 100), false);
});

Deno.test("a decompressor that failed once does not go on", () => {
  const good = new Uint8Array(200);
  const end = new ZstdCompressor(1).compress(new Uint8Array(50), 50, good, 0);
  const decompressor = new ZstdDecompressor();
  const out = new Uint8Array(51);
  assert.equal(decompressor.decompress(new Uint8Array(9), 0, 9, out, 50), false);
  assert.equal(decompressor.decompress(good, 0, end, out, 50), false);
});

/** A receiver that has taken HELLO and BEGIN, and the PACKED frames and the COMMIT that follow. */
function packedSession(): {
  receiver: () => { receiver: TxnReceiver; desk: Desk };
  wire: Uint8Array;
} {
  const hello = encodeHello({
    version: PROTOCOL_VERSION,
    features: FEATURE.packed,
    session: new Uint8Array(16),
    heartbeatMs: 1,
    graceMs: 1,
    committed: 0,
    maxTransactionBytes: 0,
    software: "",
  });
  const opening = joined([
    encodeHeader({
      command: TXN.HELLO,
      flags: 0,
      sequence: 0,
      transaction: 0,
      lengthBytes: hello.length,
    }),
    hello,
    encodeHeader({ command: TXN.BEGIN, flags: 1, sequence: 0, transaction: 1, lengthBytes: 0 }),
  ]);
  const packer = new FramePacker(() => 0);
  let checksum = 0;
  const inner = (sequence: number) => {
    const body = new Uint8Array(700).map((_, i) => (i * sequence) >> 3);
    const header = {
      command: TXN.CONTINUE,
      flags: 0,
      sequence,
      transaction: 1,
      lengthBytes: body.length,
    };
    checksum = crc32(body, checksum);
    return packer.pack([encodeHeader(header), body]);
  };
  const pieces = [1, 2, 3].flatMap(inner);
  const commit = new Uint8Array(12);
  new DataView(commit.buffer).setUint32(0, checksum);
  commit[11] = 2100 & 0xff;
  commit[10] = 2100 >> 8;
  pieces.push(
    encodeHeader({ command: TXN.COMMIT, flags: 0, sequence: 4, transaction: 1, lengthBytes: 12 }),
    commit,
  );
  return {
    receiver() {
      const desk = new Desk();
      const receiver = new TxnReceiver(OPTIONS, desk, 0);
      desk.receiver = receiver;
      receiver.receive(opening, 0, opening.length, 0);
      return { receiver, desk };
    },
    wire: joined(pieces),
  };
}

Deno.test("packed frames cut at any byte wait for the rest", () => {
  const { receiver: open, wire } = packedSession();
  const whole = open();
  whole.receiver.receive(wire, 0, wire.length, 0);
  for (let cut = 0; cut < wire.length; cut++) {
    const { receiver, desk } = open();
    const taken = receiver.receive(wire.slice(0, cut), 0, cut, 0);
    assert.ok(taken <= cut);
    const rest = wire.slice(taken);
    assert.equal(receiver.receive(rest, 0, rest.length, 0), rest.length);
    assert.deepEqual(desk.payloadBytes, whole.desk.payloadBytes);
  }
});

Deno.test("damaged packed frames are never committed: they are refused, or their checksum fails", () => {
  const { receiver: open, wire } = packedSession();
  const whole = open();
  whole.receiver.receive(wire, 0, wire.length, 0);
  assert.match(whole.desk.log.at(-1)!, /^commit 1/);
  let refused = 0;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(wire.length - 1), fc.integer({ min: 1, max: 255 })), {
        minLength: 1,
        maxLength: 4,
      }),
      (damage) => {
        const bytes = wire.slice();
        for (const [at, mask] of damage) bytes[at] ^= mask;
        const { receiver, desk } = open();
        try {
          receiver.receive(bytes, 0, bytes.length, 0);
        } catch (error) {
          assert.ok(error instanceof KemariError, String(error));
          refused++;
        }
        const committed = desk.log.filter((line) => line.startsWith("commit"));
        // Two changes may make up for each other.
        assert.ok(committed.length === 0 || committed[0] === whole.desk.log.at(-1));
      },
    ),
    { numRuns: 1500, seed: 8 },
  );
  assert.ok(refused > 1000, `${refused} refused`);
});

Deno.test("a sender does not pack for a peer that does not take it, nor take it itself", () => {
  for (const features of [FEATURE.events, FEATURE.events | FEATURE.packed]) {
    const session = new Uint8Array(16);
    const options = { session, heartbeatMs: 1, graceMs: 9, software: "", packingClock: () => 0 };
    const sender = new TxnSender(options, 0);
    const hello = encodeHello({
      version: PROTOCOL_VERSION,
      features,
      session,
      heartbeatMs: 1,
      graceMs: 9,
      committed: 0,
      maxTransactionBytes: 0,
      software: "",
    });
    const header = { command: TXN.HELLO, flags: 0, sequence: 0, transaction: 0 };
    const answer = joined([encodeHeader({ ...header, lengthBytes: hello.length }), hello]);
    sender.receive(answer, 0, answer.length, 0);
    sender.takeOutput();
    sender.begin("full");
    sender.forward(new Uint8Array(1000));
    const commands = sender.takeOutput().filter(({ length }) => length >= HEADER_BYTES)
      .map((piece) => piece[2]);
    const packs = features !== FEATURE.events;
    assert.equal(commands.includes(TXN.PACKED), packs);
    assert.equal(sender.packed !== undefined, packs);
  }
  const link = new Link();
  assert.equal(link.sender.packed, undefined, "it was not asked to");
  const inner = packed(joined(frame(TXN.CONTINUE, 1, Uint8Array.of(1))));
  assert.throws(
    () => link.sender.receive(inner, 0, inner.length, 0),
    (error) => error instanceof WireError && /PACKED, which no receiver sends/.test(error.message),
  );
});
