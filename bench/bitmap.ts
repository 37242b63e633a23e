/**
 * `kemari bench bitmap`: traversing the set of a guest's dirty pages, to find each of them.
 *
 * The 2010 talk's first optimization: QEMU then kept a byte for each page and looked at every one;
 * a bit for each page, skipping words without any, was up to 132 times faster. Measured here for
 * guests of 512 MB to 64 GB with 0.001 % to 50 % of their pages dirty, at random places, which is
 * the worst case for skipping: real guests dirty pages in runs.
 *
 * - _byte per page_: a loop over every byte, as in 2010.
 * - _byte per page, memchr_: the same bytes, searched by the runtime's native `indexOf`.
 * - _bit per page, word skipping_: 32 pages a word, words of 0 skipped.
 * - _DirtyBitmap_: the product's bitmap (lib/replica/pages/dirty_bitmap.ts): a second level with a
 *   bit for each word, so that 1,024 pages are skipped at a time, and nothing is examined after the
 *   last dirty page.
 *
 * Results: below 1 % the second level decides, and DirtyBitmap takes some nanoseconds for each
 * dirty page, however large the guest. Above 10 % finding the next bit costs more than skipping
 * saves, and the bits are still 4 times as fast as bytes. The speed of the byte loop depends on
 * what the compiler knows when the loop gets hot (0.4–1.1 ns a byte), so native `memchr`, 0.24 ns a
 * byte while it finds nothing, is the second reference; a call is necessary for each dirty page, so
 * it is slower from 10 % on. A list of page numbers is even faster to traverse (RamImage's commit
 * by 1 µs for 50 pages), but takes 32 times the memory if all pages are dirty, and has no order.
 */
import { DirtyBitmap } from "../lib/replica/pages/dirty_bitmap.ts";
import type { BenchChart, BenchExperiment } from "../lib/report/bench_result.ts";
import { median, pairedRatios } from "../lib/report/bench_statistics.ts";
import type { BenchContext } from "./bench_context.ts";
import { delay } from "../lib/host/system/delay.ts";

const PAGES_PER_MB = 256;
const SIZES_MB = [512, 4096, 16_384, 65_536];
const PERCENTS = [0.001, 0.01, 0.1, 1, 10, 50];
const ROUNDS = 9;
const QUICK_ROUNDS = 5;
/** The least length of a sample; faster traversals are repeated. */
const SAMPLE_MS = 4;

/** A way to keep a set of pages, filled, and to traverse it. */
interface Way {
  readonly name: string;
  /** @returns all page numbers XORed, so that every way has to find every page. */
  readonly travel: () => number;
}

const PRODUCT = "DirtyBitmap";
const BYTES = "byte per page";
const MEMCHR = "byte per page, memchr";

/** All ways, holding the same pages. */
export function waysOf(pages: number, dirty: Iterable<number>): Way[] {
  const bytes = new Uint8Array(pages);
  const words = new Uint32Array(Math.ceil(pages / 32));
  const bitmap = new DirtyBitmap(pages);
  for (const page of dirty) {
    bytes[page] = 1;
    words[page >>> 5] |= 1 << (page & 31);
    bitmap.set(page);
  }
  return [
    { name: BYTES, travel: () => travelBytes(bytes) },
    { name: MEMCHR, travel: () => searchBytes(bytes) },
    { name: "bit per page, word skipping", travel: () => travelWords(words) },
    { name: PRODUCT, travel: () => travelBitmap(bitmap) },
  ];
}

function travelBytes(bytes: Uint8Array): number {
  let mixed = 0;
  for (let page = 0; page < bytes.length; page++) {
    if (bytes[page] !== 0) mixed ^= page;
  }
  return mixed;
}

function searchBytes(bytes: Uint8Array): number {
  let mixed = 0;
  for (let page = bytes.indexOf(1); page >= 0; page = bytes.indexOf(1, page + 1)) mixed ^= page;
  return mixed;
}

function travelWords(words: Uint32Array): number {
  let mixed = 0;
  for (let index = 0; index < words.length; index++) {
    for (let word = words[index]; word !== 0; word &= word - 1) {
      mixed ^= (index << 5) + 31 - Math.clz32(word & -word);
    }
  }
  return mixed;
}

function travelBitmap(bitmap: DirtyBitmap): number {
  let mixed = 0;
  bitmap.forEach((page) => void (mixed ^= page));
  return mixed;
}

const DIRTY_AXIS = { name: "dirty pages", unit: "%", scale: "log" } as const;

export async function benchBitmap(context: BenchContext): Promise<BenchExperiment> {
  const rounds = context.rounds ?? (context.quick ? QUICK_ROUNDS : ROUNDS);
  const charts: BenchChart[] = [];
  const factors: { name: string; points: [number, number][] }[] = [];
  const told: { name: string; samples: number[] }[] = [];
  const steps = SIZES_MB.length * PERCENTS.length;
  let step = 0;
  for (const sizeMb of SIZES_MB) {
    const size = sizeMb < 1024 ? `${sizeMb} MB` : `${sizeMb / 1024} GB`;
    const curves = new Map<string, [number, number][]>();
    const factor: [number, number][] = [];
    for (const percent of PERCENTS) {
      context.progress("bitmap", step++, steps, `${size}, ${percent} % dirty`);
      // Lets signals through: nothing else here waits.
      await delay(0);
      context.signal.throwIfAborted();
      const samples = measure(sizeMb * PAGES_PER_MB, percent, rounds);
      for (const [name, ms] of samples) {
        curves.set(name, [...curves.get(name) ?? [], [percent, median(ms) * 1000]]);
      }
      const ratios = pairedRatios(samples.get(BYTES)!, samples.get(PRODUCT)!);
      factor.push([percent, median(ratios)]);
      if (sizeMb !== 4096) continue;
      for (const [other, short] of [[BYTES, "a byte loop"], [MEMCHR, "memchr"]]) {
        told.push({
          name: `4 GB, ${percent} % dirty, / ${short}`,
          samples: pairedRatios(samples.get(other)!, samples.get(PRODUCT)!),
        });
      }
    }
    charts.push({
      name: `travelling ${size}`,
      x: DIRTY_AXIS,
      y: { name: "time", unit: "µs", scale: "log" },
      curves: [...curves].map(([name, points]) => ({ name, points })),
    });
    factors.push({ name: size, points: factor });
  }
  return {
    name: "bitmap",
    about: "Finding every dirty page of a guest, at random places: byte per page against bits",
    conditions: { pages: "4 KiB" },
    series: told.map((each) => ({ ...each, unit: "×" })),
    charts: [{
      name: "how many times as fast DirtyBitmap is as a byte per page",
      x: DIRTY_AXIS,
      y: { name: "factor", unit: "×", scale: "log" },
      curves: factors,
    }, ...charts],
    notes: [
      "series: time of the other divided by DirtyBitmap's, in one round",
      "DirtyBitmap is what the product keeps the pages of a transaction in",
    ],
    cannotShow: ["vector instructions, which a byte loop in C may be compiled to"],
  };
}

/** @returns The samples of each way, in ms per traversal; sample i of every way is from round i. */
function measure(pages: number, percent: number, rounds: number): Map<string, number[]> {
  const count = Math.max(1, Math.round(pages * percent / 100));
  const drawn = new DirtyBitmap(pages);
  const random = randomPages(pages);
  while (drawn.count < count) drawn.set(random());
  const ways = waysOf(pages, pagesOf(drawn));
  const samples = new Map(ways.map(({ name }) => [name, [] as number[]]));
  const repeats = ways.map(({ travel }) => {
    travel();
    const begun = performance.now();
    travel();
    return Math.max(1, Math.ceil(SAMPLE_MS / Math.max(performance.now() - begun, 0.001)));
  });
  for (let round = 0; round < rounds; round++) {
    ways.forEach(({ name, travel }, i) => {
      const begun = performance.now();
      for (let repeat = 0; repeat < repeats[i]; repeat++) travel();
      samples.get(name)!.push((performance.now() - begun) / repeats[i]);
    });
  }
  return samples;
}

function* pagesOf(bitmap: DirtyBitmap): Generator<number> {
  for (let page = bitmap.next(0); page < bitmap.pages; page = bitmap.next(page + 1)) yield page;
}

/** The same pages in every run: a small generator with a fixed seed. */
function randomPages(pages: number): () => number {
  let state = 0x9e3779b9;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return Math.floor((state >>> 0) / 0x1_0000_0000 * pages);
  };
}
