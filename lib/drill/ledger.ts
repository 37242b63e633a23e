/**
 * A part of the disk whose every state can be told: block k holds the last number that is k modulo
 * the count of blocks, and numbers are written in order, one at a time, each flushed.
 *
 * So the contents say which write was the last, and whether all before it are there. A replica that
 * is the primary's disk as of some moment reads as such a state; one that lacks a write, or has a
 * later one without an earlier one, does not.
 */

export const BLOCK_BYTES = 4096;
export const LEDGER_BLOCKS = 1024;
export const LEDGER_BYTES = BLOCK_BYTES * LEDGER_BLOCKS;

/** What a ledger holds. */
interface Ledger {
  /** The last number written; 0 for none. */
  readonly last: number;
  /** Why it is the state of no moment at all. */
  readonly fault?: string;
}

/** The guest's script that writes the ledger until `/mem/stop` is there, one number every 20 ms. */
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
