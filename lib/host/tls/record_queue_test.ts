import assert from "node:assert/strict";
import { RECORD_BYTES, RecordQueue } from "./record_queue.ts";

/** What lies at an address. */
function bytesAt(address: number, length: number): Uint8Array {
  const pointer = Deno.UnsafePointer.create(BigInt(address));
  return new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer!, length)).slice();
}

/** Takes everything out, record by record. */
function drain(queue: RecordQueue): { records: number[]; bytes: number[] } {
  const records: number[] = [];
  const bytes: number[] = [];
  while (queue.pendingBytes > 0) {
    const address = queue.nextAddress();
    const length = queue.nextLength;
    assert.ok(length > 0 && length <= RECORD_BYTES);
    // What could not be written is the very same when it is tried again, whatever was pushed meanwhile.
    assert.deepEqual([queue.nextAddress(), queue.nextLength], [address, length]);
    for (const byte of bytesAt(address, length)) bytes.push(byte);
    records.push(length);
    queue.advance();
  }
  return { records, bytes };
}

function piece(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff);
}

const CASES: readonly { readonly pushed: number[]; readonly records: number[] }[] = [
  { pushed: [1], records: [1] },
  { pushed: [0, 3, 0], records: [3] },
  { pushed: [24, 4096, 24, 100], records: [4244] },
  { pushed: [RECORD_BYTES], records: [RECORD_BYTES] },
  { pushed: [RECORD_BYTES + 1], records: [RECORD_BYTES, 1] },
  { pushed: [24, 3 * RECORD_BYTES], records: [RECORD_BYTES, RECORD_BYTES, RECORD_BYTES, 24] },
  { pushed: [RECORD_BYTES + 5, 10], records: [RECORD_BYTES, 15] },
  { pushed: Array(5000).fill(10), records: [RECORD_BYTES, RECORD_BYTES, RECORD_BYTES, 848] },
];
for (const { pushed, records } of CASES) {
  const what = pushed.length > 5 ? `${pushed.length} pieces` : `pieces of ${pushed}`;
  Deno.test(`${what} become records of ${records}`, () => {
    const queue = new RecordQueue();
    const pieces = pushed.map(piece);
    queue.push(pieces);
    const total = pushed.reduce((sum, length) => sum + length, 0);
    assert.deepEqual([queue.queued, queue.pendingBytes, queue.written], [total, total, 0]);
    const drained = drain(queue);
    assert.deepEqual(drained.records, records);
    assert.deepEqual(drained.bytes, pieces.flatMap((one) => [...one]));
    assert.deepEqual([queue.queued, queue.pendingBytes, queue.written], [total, 0, total]);
  });
}

Deno.test("a record that waits to be written again is not changed by what comes behind it", () => {
  const queue = new RecordQueue();
  queue.push([piece(10, 1)]);
  const address = queue.nextAddress();
  assert.equal(queue.nextLength, 10);
  queue.push([piece(20, 2)]);
  assert.deepEqual([queue.nextAddress(), queue.nextLength], [address, 10]);
  const { records, bytes } = drain(queue);
  assert.deepEqual(records, [10, 20]);
  assert.deepEqual(bytes, [...piece(10, 1), ...piece(20, 2)]);
});

Deno.test("a large piece is written from where it lies, and pieces of another memory too", () => {
  const queue = new RecordQueue();
  const memory = new Uint8Array(4 * RECORD_BYTES).fill(9);
  queue.push([memory.subarray(100, 100 + RECORD_BYTES), new Uint8Array(RECORD_BYTES).fill(3)]);
  const first = queue.nextAddress();
  memory[100] = 77;
  assert.equal(bytesAt(first, 1)[0], 77);
  queue.advance();
  assert.equal(bytesAt(queue.nextAddress(), 1)[0], 3);
});

Deno.test("what waits can be given to somebody else to write", () => {
  const queue = new RecordQueue();
  queue.push([piece(RECORD_BYTES + 10, 1), piece(5, 2)]);
  queue.nextAddress();
  queue.advance();
  const rest = queue.takeRest();
  assert.deepEqual(rest.map(({ length }) => length), [10, 5]);
  assert.deepEqual([...rest[0]], [...piece(RECORD_BYTES + 10, 1).subarray(RECORD_BYTES)]);
  assert.deepEqual([queue.queued, queue.pendingBytes], [RECORD_BYTES, 0]);
  queue.push([piece(3, 3)]);
  assert.deepEqual(drain(queue).bytes, [...piece(3, 3)]);
});
