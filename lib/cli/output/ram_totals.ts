import type { BlockCensus } from "../../qemu/page_census.ts";

const COUNTS = [
  "pages",
  "zeroPages",
  "fillPages",
  "xbzrlePages",
  "distinctPages",
  "duplicatePages",
] as const;

/** Page counts of all blocks of all streams; a page is distinct within its own stream. */
export class RamTotals {
  readonly sums: { [count in typeof COUNTS[number]]: number } = {
    pages: 0,
    zeroPages: 0,
    fillPages: 0,
    xbzrlePages: 0,
    distinctPages: 0,
    duplicatePages: 0,
  };

  add(blocks: readonly BlockCensus[]): void {
    for (const block of blocks) for (const count of COUNTS) this.sums[count] += block[count];
  }
}
