import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { LineDecoder } from "./line_decoder.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

function isFault(fault: string, offset: number) {
  return (error: unknown) => {
    assert.ok(error instanceof WireError);
    assert.deepEqual([error.protocol, error.fault, error.offset], ["control", fault, offset]);
    return /control stream, offset \d+: peer: /.test(error.message);
  };
}

Deno.test("lines come whole, wherever the bytes are cut", () => {
  const text = 'first\n\n{"größe":"☃"}\nrest';
  const all = bytes(text);
  for (let first = 0; first <= all.length; first++) {
    for (let second = first; second <= all.length; second++) {
      const decoder = new LineDecoder(64, "peer");
      const lines = [all.subarray(0, first), all.subarray(first, second), all.subarray(second)]
        .flatMap((piece) => decoder.receive(piece));
      assert.deepEqual(lines, ["first", "", '{"größe":"☃"}']);
    }
  }
});

Deno.test("what is begun is a copy: the bytes may be used again", () => {
  const decoder = new LineDecoder(64, "peer");
  const piece = bytes("abc");
  decoder.receive(piece);
  piece.fill(0);
  assert.deepEqual(decoder.receive(bytes("d\n")), ["abcd"]);
});

Deno.test("a line as long as the bound is taken, a longer one is not, in however many pieces", () => {
  const decoder = new LineDecoder(8, "peer");
  assert.deepEqual(decoder.receive(bytes("12345678\n12")), ["12345678"]);
  assert.deepEqual(decoder.receive(bytes("345678\n")), ["12345678"]);
  assert.throws(() => decoder.receive(bytes("123456789\n")), isFault("too-large", 18));
  const slow = new LineDecoder(8, "peer");
  for (const each of "12345678") slow.receive(bytes(each));
  assert.throws(() => slow.receive(bytes("9")), isFault("too-large", 0));
});

Deno.test("a line that is no UTF-8 is refused at its offset", () => {
  const decoder = new LineDecoder(8, "peer");
  decoder.receive(bytes("ab\n"));
  assert.throws(() => decoder.receive(new Uint8Array([0xff, 0x0a])), isFault("bad-value", 3));
});
