/**
 * A part of the disk whose contents show its state: block k has the last number that is k modulo
 * the count of blocks, and the guest writes the numbers in order, one at a time, each flushed.
 *
 * So the contents show which write was the last, and whether all earlier writes are there. A
 * replica that is the primary's disk at some moment has such contents; a replica that lacks a
 * write, or has a later write without an earlier one, does not.
 */

export const BLOCK_BYTES = 4096;
export const LEDGER_BLOCKS = 1024;
export const LEDGER_BYTES = BLOCK_BYTES * LEDGER_BLOCKS;

/** The state of a ledger. */
interface Ledger {
  /** The last number written; 0 for none. */
  readonly last: number;
  /** Why these contents are not the state of any moment. */
  readonly fault?: string;
}

/** The guest's script that writes a number to the ledger every 20 ms until `/mem/stop` exists. */
export function ledgerScript(disk: string, firstBlock: number): string {
  return `#!/bin/sh
mkfifo /mem/.ledger
exec 3<>/mem/.ledger
n=0
while [ ! -e /mem/stop ]; do
  n=$((n + 1))
  printf '%-${BLOCK_BYTES - 1}d\\n' $n |
    dd of=${disk} bs=${BLOCK_BYTES} seek=$((${firstBlock} + n % ${LEDGER_BLOCKS})) \\
      iflag=fullblock conv=notrunc,fsync 2>/dev/null
  echo $n > /mem/written
  read -r -t 0.02 _ <&3
done
echo > /mem/stopped
`;
}

/** A block as the guest writes it. */
export function encodeLedgerBlock(number: number): Uint8Array {
  return new TextEncoder().encode(`${number}`.padEnd(BLOCK_BYTES - 1) + "\n");
}

/**
 * Reads a ledger.
 *
 * @param bytes All of its blocks.
 */
export function readLedger(bytes: Uint8Array): Ledger {
  const blank = new Uint8Array(BLOCK_BYTES);
  const text = new TextDecoder();
  const numbers: number[] = [];
  for (let block = 0; block < LEDGER_BLOCKS; block++) {
    const content = bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    if (equal(content, blank)) {
      numbers.push(0);
      continue;
    }
    const number = Number(text.decode(content.subarray(0, 16)).trimEnd());
    if (!Number.isSafeInteger(number) || !equal(content, encodeLedgerBlock(number))) {
      return { last: Math.max(0, ...numbers), fault: `block ${block} is none that was written` };
    }
    numbers.push(number);
  }
  const last = Math.max(...numbers);
  for (let block = 0; block < LEDGER_BLOCKS; block++) {
    const back = (last % LEDGER_BLOCKS - block + LEDGER_BLOCKS) % LEDGER_BLOCKS;
    const expected = Math.max(0, last - back);
    if (numbers[block] === expected) continue;
    return {
      last,
      fault: `write ${expected} is missing though write ${last} is there (block ${block} has ${
        numbers[block]
      })`,
    };
  }
  return { last };
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
