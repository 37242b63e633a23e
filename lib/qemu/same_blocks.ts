import type { RamBlock } from "./wire.ts";

/** Whether two lists have the same blocks of the same lengths, in the same order. */
export function sameBlocks(a: readonly RamBlock[], b: readonly RamBlock[]): boolean {
  return a.length === b.length &&
    a.every((block, i) => block.name === b[i].name && block.lengthBytes === b[i].lengthBytes);
}
