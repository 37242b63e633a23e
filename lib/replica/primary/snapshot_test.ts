import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import {
  concat,
  configuration,
  deviceState,
  fullStream,
  HEADER,
  memSize,
  page,
  PAGE_BYTES,
  type Part,
  ramSection,
  VMDESC,
  xbzrle,
  zero,
} from "../../qemu/testing/synthetic_stream.ts";
import { blankRamRecord } from "../../qemu/ram_record.ts";
import { MAX_CONTROL_BYTES } from "../../txn/wire.ts";
import { composed, LoadedVm, Loopback } from "../testing/loopback.ts";
import { DigestAnswer } from "../pages/digest_answer.ts";
import { createPageDigest, digestPayloads, DigestTable } from "../pages/page_digest.ts";
import { RamImage } from "../pages/ram_image.ts";
import { SlotPool } from "../pages/slot_pool.ts";

const digest = await createPageDigest(1, 2);

const BLOCKS = [["a", 8 * PAGE_BYTES], ["b", 8 * PAGE_BYTES]] as const;

function stream(records: readonly Part[], blocks: Parameters<typeof memSize>[0] = BLOCKS) {
  return concat(
    [HEADER, configuration(), ramSection("START", memSize(blocks))],
    [ramSection("END", records), deviceState(1), VMDESC],
  );
}

/** Checks that the replica holds what the last stream alone says. */
function holds(link: Loopback, last: Uint8Array): void {
  new LoadedVm().load(last).equals(new LoadedVm().load(composed(link.replica)));
}

Deno.test("a second snapshot of a recorded VM sends no page again", async () => {
  for (const { name, kind } of listStreams()) {
    if (kind !== "plain" || /no-vmdesc|shared|dirty-bitmap/.test(name)) continue;
    const link = await Loopback.open();
    const snapshot = loadStream(name);
    link.feed(snapshot);
    const { pages, zeroPages, payloadBytes } = link.primary.counters;
    const first = composed(link.replica);
    link.feed(snapshot);
    // A page that a guest writes to is sent twice within one stream, and differs each time.
    if (!/xbzrle|virtio/.test(name)) {
      assert.equal(link.primary.counters.pages, pages);
      assert.equal(link.primary.counters.zeroPages, zeroPages);
      assert.equal(link.primary.counters.unchangedPages, pages + zeroPages);
      assert.ok(link.primary.counters.lastPayloadBytes < payloadBytes / 2);
    }
    assert.deepEqual(composed(link.replica), first);
    link.end();
    assert.equal(link.secondaryEvents.at(-1)?.kind, "handover");
  }
});

Deno.test("a page whose block was named by a page left out names it itself", async () => {
  const link = await Loopback.open();
  link.feed(stream([page(0, 1, "a"), page(1, 2), page(0, 3, "b"), page(1, 4)]));
  const second = stream([page(0, 1, "a"), page(1, 20), page(0, 3, "b"), page(1, 40), page(2, 5)]);
  link.feed(second);
  assert.equal(link.primary.counters.unchangedPages, 2);
  holds(link, second);
  // And a name that stays behind a page left out of another block stays right as well.
  const third = stream([page(1, 20, "a"), zero(5), page(0, 33, "b"), zero(1), page(2, 5)]);
  link.feed(third);
  const merged = stream([page(0, 1, "a"), page(1, 20), page(0, 33, "b"), page(2, 5)]);
  holds(link, merged);
});

Deno.test("any two snapshots: the replica is the second, and unchanged pages do not travel", async () => {
  const content = fc.array(
    fc.tuple(
      fc.nat(7),
      fc.nat(3),
      fc.constantFrom("a", "b"),
      fc.constantFrom("page", "page", "zero", "fill", "xbzrle"),
    ),
    { maxLength: 24 },
  );
  /** All pages first, as QEMU's first pass does; then some again. */
  const records = (changes: readonly (readonly [number, number, string, string])[]): Part[] => {
    let last = "";
    const every: [number, number, string, string][] = [];
    for (const block of ["a", "b"]) {
      for (let n = 0; n < 8; n++) every.push([n, n % 3, block, "page"]);
    }
    return [...every, ...changes].map(([number, seed, block, kind]) => {
      const named = block === last ? undefined : block;
      last = block;
      if (kind === "page") return seed === 0 ? zero(number, named) : page(number, seed, named);
      if (kind === "xbzrle") return xbzrle(number, Uint8Array.of(seed, 1, 9), named);
      return zero(number, named, kind === "zero" ? 0 : seed);
    });
  };
  await fc.assert(
    fc.asyncProperty(content, content, content, async (one, two, three) => {
      const link = await Loopback.open();
      for (const changes of [one, two, three]) {
        const snapshot = stream(records(changes));
        link.feed(snapshot);
        holds(link, snapshot);
      }
      const again = link.primary.counters;
      assert.ok(again.unchangedPages > 0);
    }),
    { numRuns: 60, seed: 9 },
  );
});

Deno.test("a new session begins from the replica as it is", async () => {
  const before = await Loopback.open();
  before.feed(fullStream(1));
  before.feed(fullStream(2).subarray(0, 3000));
  before.secondary.abort();
  const link = await Loopback.open({ replica: before.replica });
  link.feed(fullStream(1));
  assert.equal(link.replica.committed, 2);
  assert.ok(link.primary.counters.unchangedPages > 5);
  holds(link, fullStream(1));
});

Deno.test("another block list, or another order of it, is sent in full", async () => {
  const link = await Loopback.open();
  link.feed(stream([page(0, 1, "a"), page(0, 2, "b")]));
  const swapped = [...BLOCKS].reverse();
  const other = stream([page(0, 1, "a"), page(0, 2, "b")], swapped);
  link.feed(other);
  assert.equal(link.primary.counters.unchangedPages, 0);
  assert.deepEqual(link.replica.blocks.map(({ name }) => name), ["b", "a"]);
  // What the replica holds now is asked for anew, so the next one builds on it.
  link.feed(other);
  assert.equal(link.primary.counters.unchangedPages, 2);
  const back = stream([page(0, 1, "a")]);
  link.feed(back);
  holds(link, back);
  assert.deepEqual(link.replica.blocks.map(({ name }) => name), ["a", "b"]);
});

Deno.test("digests tell every page of an image, in payloads that fit a frame", () => {
  const pages = 20_000;
  const blocks = [
    { name: "x".repeat(200), lengthBytes: pages * 512 },
    { name: "empty", lengthBytes: 512 },
    ...Array.from({ length: 500 }, (_, n) => ({ name: `rom${n}`, lengthBytes: 1024 })),
  ];
  const image = new RamImage(blocks, new SlotPool(512));
  const bytes = new Uint8Array(512);
  const record = { ...blankRamRecord(), bytes, lengthBytes: 512 };
  const isZero = (n: number) => n % 7 === 0 || n > 9000 && n < 9500;
  for (let n = 0; n < pages; n++) {
    new DataView(bytes.buffer).setUint32(0, n + 1);
    if (!isZero(n)) image.stage({ ...record, pageOffset: n * 512 });
  }
  image.stage({ ...record, block: 501, pageOffset: 512 });
  image.commit();
  const answer = new DigestAnswer(blocks, 512);
  let payloads = 0;
  for (const payload of digestPayloads(image, digest)) {
    assert.ok(payload.length > 0 && payload.length <= MAX_CONTROL_BYTES);
    assert.equal(answer.table, undefined);
    answer.receive(payload);
    payloads++;
  }
  assert.ok(payloads > 2);
  const table = answer.table!;
  for (let n = 0; n < pages; n++) {
    assert.equal(table.isZero(blocks[0].name, n), isZero(n));
    const content = image.page(0, n);
    if (content !== undefined) assert.ok(table.matches(blocks[0].name, n, digest(content)));
  }
  assert.ok(!table.isZero("rom499", 1) && table.isZero("rom499", 0) && table.isZero("empty", 0));
});

Deno.test("a table forgets, and pages of zeros need no entry", () => {
  const table = new DigestTable();
  const content = digest(new Uint8Array(512).fill(1)).slice();
  assert.ok(table.isZero("a", 5) && !table.matches("a", 5, content));
  table.set("a", 5, content);
  assert.ok(!table.isZero("a", 5) && table.matches("a", 5, content));
  table.forget("a", 5);
  assert.ok(!table.isZero("a", 5) && !table.matches("a", 5, content));
  table.setZero("a", 5);
  assert.ok(table.isZero("a", 5));
});
