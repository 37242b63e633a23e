import assert from "node:assert/strict";
import {
  BLOCK_BYTES,
  encodeLedgerBlock,
  LEDGER_BLOCKS,
  LEDGER_BYTES,
  readLedger,
} from "./ledger.ts";

/** A disk on which these numbers were written, in this order. */
function written(numbers: Iterable<number>): Uint8Array {
  const bytes = new Uint8Array(LEDGER_BYTES);
  for (const n of numbers) bytes.set(encodeLedgerBlock(n), n % LEDGER_BLOCKS * BLOCK_BYTES);
  return bytes;
}

function* upTo(last: number, without?: number): Generator<number> {
  for (let n = 1; n <= last; n++) if (n !== without) yield n;
}

Deno.test("a ledger tells its last write, over wraps", () => {
  for (const last of [0, 1, 7, LEDGER_BLOCKS - 1, LEDGER_BLOCKS, LEDGER_BLOCKS + 1, 2500]) {
    assert.deepEqual(readLedger(written(upTo(last))), { last });
  }
});

Deno.test("a ledger without one of its writes is that of no moment", () => {
  for (const [last, lost] of [[7, 6], [7, 1], [1500, 1499], [1500, 700], [2049, 1026]]) {
    const { last: found, fault } = readLedger(written(upTo(last, lost)));
    assert.equal(found, last);
    assert.match(fault!, new RegExp(`^write ${lost} is missing though write ${last} is there`));
  }
});

Deno.test("a ledger with a torn or a foreign block is at fault", () => {
  const bytes = written(upTo(9));
  bytes[5 * BLOCK_BYTES + 2000] = 1;
  assert.match(readLedger(bytes).fault!, /^block 5 is none that was written/);
  bytes.fill(0xff, 3 * BLOCK_BYTES, 4 * BLOCK_BYTES);
  assert.match(readLedger(bytes).fault!, /^block 3 /);
});
