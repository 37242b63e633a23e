/** The receiver's limit, as its sender keeps it: what one refuses, the other would have. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { KemariError, WireError } from "../../errors.ts";
import {
  BLOCKS,
  checkpoint,
  concat,
  configuration,
  deviceState,
  HEADER,
  memSize,
  page,
  PAGE_BYTES,
  ramSection,
  VMDESC,
  xbzrle,
  zero,
} from "../../qemu/testing/synthetic_stream.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import { encodeTapEvent, EVENT_OVERHEAD_BYTES } from "../events/tap_events.ts";
import { MemoryPages, type ReplicaStore } from "../pages/page_store.ts";
import { Replica } from "../secondary/replica.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";
import { fingerprint, Loopback } from "../testing/loopback.ts";
import type { PrimaryTaps } from "./primary_config.ts";

/** A record of the first block's page n: whole, filled, of zeros, or a difference. */
type Item = readonly ["page" | "fill" | "zero" | "xbzrle", number];

function records(items: readonly Item[]): Uint8Array[] {
  return items.map(([kind, n], i) => {
    const block = i === 0 ? "pc.ram" : undefined;
    switch (kind) {
      case "page":
        return page(n, i + 1, block);
      case "xbzrle":
        return xbzrle(n, Uint8Array.of(0, 1, 9), block);
      default:
        return zero(n, block, kind === "fill" ? 7 : 0);
    }
  });
}

const full = (items: readonly Item[]) =>
  concat(
    HEADER,
    configuration(),
    ramSection("START", memSize(BLOCKS)),
    ramSection("END", ...records(items)),
    deviceState(1),
    VMDESC,
  );

class ThroughPages extends MemoryPages {
  override readonly writesThrough = true;
}
const THROUGH: ReplicaStore = {
  writesThrough: true,
  create: (blocks, pool) => new ThroughPages(blocks, pool),
  begin: () => {},
  end: () => {},
};

/** @returns The transaction that was too much, 0 if none was, and what went over the wire in it. */
async function run(
  limit: number,
  hidesLimit: boolean,
  stores: boolean,
  transactions: readonly Uint8Array[],
) {
  const taps = new SecondaryTaps(new Map(), new Set());
  const store = stores ? THROUGH : undefined;
  const replica = new Replica(limit, undefined, taps, store);
  const link = await Loopback.open({ maxTransactionBytes: limit, hidesLimit, replica });
  for (const bytes of transactions) {
    try {
      link.feed(bytes);
    } catch (error) {
      assert.ok(error instanceof WireError && error.fault === "too-large", `${error}`);
      return { refused: link.primary.transaction, link, error };
    }
  }
  return { refused: 0, link, error: undefined };
}

const item: fc.Arbitrary<Item> = fc.tuple(
  fc.constantFrom("page" as const, "page" as const, "fill" as const, "zero" as const),
  fc.nat(7),
);
const later: fc.Arbitrary<Item> = fc.tuple(
  fc.constantFrom("page" as const, "fill" as const, "zero" as const, "xbzrle" as const),
  fc.nat(7),
);

Deno.test("a sender gives up exactly where its receiver would refuse, and before it has sent it", async () => {
  let given = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(item, { minLength: 1, maxLength: 14 }),
      fc.array(fc.array(later, { minLength: 1, maxLength: 14 }), { maxLength: 4 }),
      fc.integer({ min: 1, max: 9 }),
      fc.boolean(),
      async (first, more, pages, stores) => {
        const limit = pages * PAGE_BYTES + (pages % 3) - 1;
        const transactions = [
          full(first),
          ...more.map((items, i) => checkpoint(i + 2, ...records(items))),
        ];
        const told = await run(limit, false, stores, transactions);
        const untold = await run(limit, true, stores, transactions);
        assert.equal(told.refused, untold.refused);
        assert.equal(fingerprint(told.link.replica), fingerprint(untold.link.replica));
        if (told.refused === 0) return;
        given++;
        // Nothing of what has come was too much, and the session can be left in good order.
        assert.ok(told.link.secondary.takeOutput().length === 0);
        told.link.primary.leave({ reason: "goes-on", text: "" });
        told.link.pump();
        assert.equal(told.link.secondaryEvents.at(-1)?.kind, "left");
      },
    ),
    { numRuns: 300, seed: 11 },
  );
  assert.ok(given > 50, `${given} were too large`);
});

Deno.test("what a sender says when it gives up names the limit, and the option that sets it", async () => {
  const { error } = await run(3 * PAGE_BYTES, false, false, [full([
    ...[0, 1, 2, 3].map((n): Item => ["page", n]),
  ])]);
  assert.ok(error instanceof KemariError);
  assert.match(
    error.message,
    /transaction 1 has more than the 3072 bytes of pages that the receiver/,
  );
  assert.match(error.hint!, /--max-transaction/);
  assert.equal(error.party, "peer");
});

/** Taps that have recorded some writes. */
function tapsWith(events: Uint8Array[][]): PrimaryTaps {
  return {
    checkpointRequested: () => {},
    holdInputs: () => true,
    giveInputs: () => {},
    vmStops: () => {},
    drain: () => {},
    takeEvents: () => events.splice(0),
    closeEpoch: () => {},
    release: () => {},
  };
}

Deno.test("events count by themselves, to the byte", async () => {
  const write = encodeTapEvent({ kind: "write", tap: "d", offset: 0, data: new Uint8Array(100) });
  const bytes = write.reduce((sum, { length }) => sum + length, EVENT_OVERHEAD_BYTES);
  const LIMIT = 6 * PAGE_BYTES;
  const fits = Math.floor(LIMIT / bytes);
  for (const count of [fits, fits + 1]) {
    const taps = tapsWith(Array.from({ length: count }, () => write));
    const link = await Loopback.open({ maxTransactionBytes: LIMIT, taps });
    const sent = () => {
      return link.wire.filter((piece) => piece.length >= HEADER_BYTES && piece[2] === TXN.EVENT);
    };
    // There is no such disk at this secondary: it is the sender that is looked at.
    assert.throws(() => link.feed(full([["page", 0]])), (error) => {
      assert.ok(error instanceof WireError);
      assert.equal(error.fault, count === fits ? "bad-value" : "too-large", error.message);
      return true;
    });
    if (count > fits) assert.equal(sent().length, 0);
  }
});
