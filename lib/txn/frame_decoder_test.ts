import assert from "node:assert/strict";
import fc from "fast-check";
import { Carry } from "../bytes/carry.ts";
import { WireError } from "../errors.ts";
import { FrameDecoder } from "./frame_decoder.ts";
import { FRAME_RULES, type FrameName } from "./frame_rules.ts";
import type { FrameVisitor } from "./frame_visitor.ts";
import { encodeHeader, type FrameHeader } from "./frame_header.ts";
import { HEADER_BYTES, TXN } from "./wire.ts";

class Seen implements FrameVisitor {
  readonly isOver = false;
  check(): void {}
  readonly lines: string[] = [];
  #streamed = "";
  streamed(header: FrameHeader, offset: number): void {
    this.end();
    this.#streamed = `${header.command} at ${offset}:`;
  }
  piece(bytes: Uint8Array, at: number, end: number): void {
    this.#streamed += `${bytes.slice(at, end)},`;
  }
  frame(header: FrameHeader, payload: Uint8Array, offset: number): void {
    this.end();
    this.lines.push(`${header.command} at ${offset}: ${payload}`);
  }
  end(): void {
    if (this.#streamed !== "") this.lines.push(this.#streamed);
    this.#streamed = "";
  }
}

function frame(name: FrameName, payload: readonly number[], sequence = 0): number[] {
  const transaction = FRAME_RULES[name].transaction === "none" ? 0 : 1;
  const lengthBytes = payload.length;
  const header = { command: TXN[name], flags: 0, sequence, transaction, lengthBytes };
  return [...encodeHeader(header), ...payload];
}

const BYTES = Uint8Array.from([
  ...frame("DIGEST", [1, 2, 3, 4, 5]),
  ...frame("BEGIN", []),
  ...frame("CONTINUE", [7, 8, 9], 1),
  ...frame("CONTINUE", [], 2),
  ...frame("EVENT", [6, 6, 6], 3),
  ...frame("COMMIT", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 4),
]);

function decode(pieces: readonly Uint8Array[]): string[] {
  const decoder = new FrameDecoder(true);
  const seen = new Seen();
  const carry = new Carry();
  for (const piece of pieces) {
    carry.feed(piece, 0, piece.length, (b, start, end) => decoder.decode(b, start, end, seen));
  }
  decoder.finish(carry.pendingBytes);
  seen.end();
  assert.equal(decoder.offset, pieces.reduce((sum, { length }) => sum + length, 0));
  return seen.lines;
}

Deno.test("frames come out the same, however the connection cuts them", () => {
  const whole = decode([BYTES]);
  assert.equal(whole.length, 6);
  for (let at = 1; at < BYTES.length; at++) {
    const lines = decode([BYTES.subarray(0, at), BYTES.subarray(at)]);
    assert.deepEqual(lines.join("\n").replaceAll(",", ""), whole.join("\n").replaceAll(",", ""));
  }
  const single = decode(Array.from(BYTES, (byte) => Uint8Array.of(byte)));
  assert.deepEqual(single.join("\n").replaceAll(",", ""), whole.join("\n").replaceAll(",", ""));
});

Deno.test("a connection that ends inside a frame is said to, at any byte of it", () => {
  const ends = new Set([0]);
  for (let at = 0; at < BYTES.length;) {
    at += HEADER_BYTES + new DataView(BYTES.buffer, at).getUint32(16);
    ends.add(at);
  }
  for (let length = 0; length < BYTES.length; length++) {
    const decoder = new FrameDecoder(true);
    const taken = decoder.decode(BYTES.subarray(0, length), 0, length, new Seen());
    const finish = () => decoder.finish(length - taken);
    if (ends.has(length)) finish();
    else assert.throws(finish, new RegExp(`offset ${length}: .*inside a frame`));
  }
});

Deno.test("any bytes are frames or are refused; no frame is taken that was not announced", () => {
  const property = fc.property(
    fc.uint8Array({ maxLength: 60 }),
    fc.nat(BYTES.length - 1),
    fc.integer({ min: 1, max: 64 }),
    (noise, at, pieceBytes) => {
      const bytes = BYTES.slice();
      bytes.set(noise.subarray(0, bytes.length - at), at);
      const decoder = new FrameDecoder(true);
      const carry = new Carry();
      const seen = new Seen();
      try {
        for (let from = 0; from < bytes.length; from += pieceBytes) {
          const to = Math.min(bytes.length, from + pieceBytes);
          carry.feed(bytes, from, to, (b, start, end) => decoder.decode(b, start, end, seen));
        }
        decoder.finish(carry.pendingBytes);
      } catch (error) {
        assert.ok(error instanceof WireError, `${error}`);
        assert.ok(error.offset <= bytes.length);
      }
    },
  );
  fc.assert(property, { numRuns: 1000, seed: 6 });
});
