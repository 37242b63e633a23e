import assert from "node:assert/strict";
import fc from "fast-check";
import { TransportError } from "../../errors.ts";
import { adopt, kindOf, OutputQueue, readSome } from "./channel.ts";
import { cString, libc } from "./libc.ts";
import { F_GETFL, F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK } from "./linux.ts";

function pipe(sizeBytes?: number): [number, number] {
  const fds = new Int32Array(2);
  libc().pipe2(new Uint8Array(fds.buffer), O_NONBLOCK | O_CLOEXEC);
  if (sizeBytes !== undefined) libc().fcntl(fds[1], F_SETPIPE_SZ, BigInt(sizeBytes));
  return [fds[0], fds[1]];
}

function closeAll(...fds: number[]): void {
  for (const fd of fds) libc().close(fd);
}

/** Writes the pieces through a small pipe, reading it in parts of the given sizes. */
function passThrough(pieces: readonly Uint8Array[], readSizes: Iterable<number>): Uint8Array {
  const [read, write] = pipe(4096);
  try {
    const queue = new OutputQueue(write, "pipe");
    const total = pieces.reduce((sum, piece) => sum + piece.length, 0);
    const out = new Uint8Array(total);
    let pushed = 0;
    let at = 0;
    for (const size of readSizes) {
      // Some more now, the rest later: a queue is filled while it is being written.
      if (pushed < pieces.length) queue.push(pieces.slice(pushed, pushed += 3));
      const idle = queue.flush();
      assert.equal(idle, queue.pendingBytes === 0);
      const buffer = new Uint8Array(size);
      const count = readSome(read, buffer, "pipe") ?? 0;
      out.set(buffer.subarray(0, count), at);
      at += count;
      assert.ok(queue.written >= at && queue.queued >= queue.written);
      if (at === total && pushed >= pieces.length) break;
    }
    assert.equal(at, total);
    return out;
  } finally {
    closeAll(read, write);
  }
}

Deno.test("OutputQueue writes every byte in order, however little the descriptor takes", () => {
  const lengths = fc.array(
    fc.oneof(fc.nat(30), fc.integer({ min: 1000, max: 1050 }), fc.nat(20_000)),
    { maxLength: 60 },
  );
  const sizes = fc.array(fc.integer({ min: 1, max: 9000 }), { minLength: 1, maxLength: 9 });
  const property = fc.property(lengths, sizes, (pieceLengths, readSizes) => {
    let seed = 0;
    const pieces = pieceLengths.map((n) =>
      new Uint8Array(n).map(() => (seed = seed * 5 + 11) & 255)
    );
    const whole = new Uint8Array(pieces.flatMap((piece) => [...piece]));
    function* forever() {
      for (;;) yield* [...readSizes, 4096];
    }
    assert.deepEqual(passThrough(pieces, forever()), whole);
  });
  fc.assert(property, { numRuns: 60, seed: 7 });
});

Deno.test("OutputQueue takes thousands of small pieces and more than one vector of large ones", () => {
  const small = Array.from({ length: 9000 }, (_, i) => Uint8Array.of(i, i >> 8, 7));
  const large = Array.from({ length: 700 }, (_, i) => new Uint8Array(1025).fill(i));
  const pieces = [...small, ...large, ...small];
  function* forever() {
    for (;;) yield 65536;
  }
  const out = passThrough(pieces, forever());
  let at = 0;
  for (const piece of pieces) {
    assert.deepEqual(out.subarray(at, at + piece.length), piece);
    at += piece.length;
  }
});

Deno.test("OutputQueue says that the reader has gone, and who it was", () => {
  const [read, write] = pipe();
  closeAll(read);
  try {
    const queue = new OutputQueue(write, "the peer");
    queue.push([Uint8Array.of(1)]);
    assert.throws(() => queue.flush(), (error) => {
      assert.ok(error instanceof TransportError);
      assert.equal(error.message, "the peer: the reader is gone");
      return error.endpoint === "the peer" && error.phase === "write";
    });
  } finally {
    closeAll(write);
  }
});

Deno.test("readSome tells nothing-yet from the end", () => {
  const [read, write] = pipe();
  const buffer = new Uint8Array(8);
  assert.equal(readSome(read, buffer, "p"), undefined);
  libc().write(write, Uint8Array.of(5, 6), 2n);
  assert.equal(readSome(read, buffer, "p"), 2);
  closeAll(write);
  assert.equal(readSome(read, buffer, "p"), 0);
  closeAll(read);
  assert.throws(() => readSome(read, buffer, "p"), TransportError);
});

Deno.test("adopt leaves a shared pipe blocking for those who share it", () => {
  const fds = new Int32Array(2);
  libc().pipe2(new Uint8Array(fds.buffer), 0);
  const [read, write] = fds;
  const own = adopt(read, "read");
  assert.notEqual(own.fd, read);
  assert.equal(kindOf(own.fd), "pipe");
  assert.notEqual(libc().fcntl(own.fd, F_GETFL, 0n) & O_NONBLOCK, 0);
  assert.equal(libc().fcntl(read, F_GETFL, 0n) & O_NONBLOCK, 0);
  own.release();
  closeAll(read, write);
});

Deno.test("kindOf knows files, pipes and the rest", () => {
  const file = Deno.makeTempFileSync({ prefix: "kemari-kind-" });
  const fd = libc().open(cString(file), 0, 0);
  const none = libc().open(cString("/dev/null"), 0, 0);
  assert.deepEqual([kindOf(fd), kindOf(none), kindOf(-1)], ["file", "other", "other"]);
  closeAll(fd, none);
  Deno.removeSync(file);
});
