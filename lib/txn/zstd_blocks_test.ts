import assert from "node:assert/strict";
import { constants, createZstdCompress, zstdCompressSync } from "node:zlib";
import { ZstdBlocks } from "./zstd_blocks.ts";
import { compressBound, WINDOW_LOG, ZstdCompressor } from "./zstd_context.ts";

const CONTENT = new Uint8Array(300_000).map((_, i) => (i * i) >> 5);

/** Some parts of one stream, each of them flushed. */
function parts(count: number): Uint8Array[] {
  const compressor = new ZstdCompressor(1);
  return Array.from({ length: count }, (_, i) => {
    const content = i % 2 === 0 ? CONTENT.subarray(i) : new Uint8Array(1 + i);
    const room = new Uint8Array(compressBound(content.length));
    return room.slice(0, compressor.compress(content, content.length, room, 0));
  });
}

const walk = (blocks: ZstdBlocks, part: Uint8Array) => blocks.walk(part, 0, part.length);

Deno.test("what a compressor flushes is whole blocks, and goes on", () => {
  const blocks = new ZstdBlocks();
  for (const part of parts(6)) assert.equal(walk(blocks, part), undefined);
});

Deno.test("a part that is cut anywhere, or has a byte too many, is said to be", () => {
  const [first, second] = parts(2);
  for (let length = 0; length < second.length; length++) {
    const blocks = new ZstdBlocks();
    assert.equal(walk(blocks, first), undefined);
    const fault = blocks.walk(second, 0, length);
    assert.equal(fault, length === 0 ? undefined : "is cut inside a block");
  }
  for (let length = 0; length < 6; length++) {
    assert.equal(new ZstdBlocks().walk(first, 0, length), "is cut inside its header");
  }
  const blocks = new ZstdBlocks();
  const longer = Uint8Array.from([...first, 0]);
  assert.equal(walk(blocks, longer), "is cut inside a block");
});

Deno.test("a frame that ends is told from one that goes on", () => {
  const ended = createZstdCompress({
    params: { [constants.ZSTD_c_windowLog]: WINDOW_LOG },
  }) as unknown as {
    _handle: { writeSync(...of: unknown[]): void };
    _writeState: Uint32Array;
  };
  const out = new Uint8Array(4096);
  const write = (how: number) => {
    ended._handle.writeSync(how, CONTENT, 0, 20, out, 0, out.length);
    return out.slice(0, out.length - ended._writeState[0]);
  };
  const blocks = new ZstdBlocks();
  assert.equal(walk(blocks, write(constants.ZSTD_e_flush)), undefined);
  assert.equal(walk(blocks, write(constants.ZSTD_e_end)), "ends, though more is to follow");
});

Deno.test("a stream is refused by what its header asks for", () => {
  const [first] = parts(1);
  const changed = (at: number, value: number) => {
    const bytes = first.slice();
    bytes[at] = value;
    return walk(new ZstdBlocks(), bytes);
  };
  const descriptor = first[4];
  for (let bit = 0; bit < 8; bit++) {
    // The checksum's bit, and one that has no meaning, are let pass.
    const expected = bit === 2 || bit === 4
      ? undefined
      : bit === 3
      ? "is damaged: a reserved bit is set"
      : "has a size or a dictionary";
    assert.equal(changed(4, descriptor ^ 1 << bit), expected, `bit ${bit}`);
  }
  assert.equal(changed(0, 0), "is none");
  assert.equal(changed(5, 16 << 3), undefined, "64 MiB");
  assert.equal(changed(5, 16 << 3 | 1), "has a window of 75497472 bytes");
  const whole = zstdCompressSync(CONTENT.subarray(0, 50));
  assert.equal(walk(new ZstdBlocks(), whole), "ends, though more is to follow");
});
