/** Whatever is made less of on the way, the replica is what QEMU's own bytes say. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { loadStream } from "../../lab/recording/streams.ts";
import {
  checkpoint,
  concat,
  configuration,
  deviceState,
  fullStream,
  HEADER,
  memSize,
  name,
  PAGE_BYTES,
  pageOf,
  type Part,
  ramSection,
  record,
  VMDESC,
  xbzrle,
  zero,
} from "../../qemu/testing/synthetic_stream.ts";

import { blankRamRecord } from "../../qemu/ram_record.ts";
import { RAM_SAVE_FLAG } from "../../qemu/wire.ts";
import type { TxnSender } from "../../txn/sender.ts";
import { TXN } from "../../txn/wire.ts";
import { DeltaCache } from "./delta_cache.ts";
import { composed, LoadedVm, Loopback, type LoopbackConfig } from "../testing/loopback.ts";
import type { PrimaryCompression } from "./primary_config.ts";
import { StreamForwarder } from "./stream_forwarder.ts";

const LARGE = 64 * PAGE_BYTES;
const SMALL = 3 * PAGE_BYTES;

const MODES: Readonly<Record<string, LoopbackConfig>> = {
  none: {},
  zstd: {
    compression: { treatments: [{ delta: false, pack: true, dedup: false }], cacheBytes: LARGE },
  },
  dedup: {
    compression: { treatments: [{ delta: false, pack: false, dedup: true }], cacheBytes: LARGE },
  },
  delta: {
    compression: { treatments: [{ delta: true, pack: false, dedup: true }], cacheBytes: LARGE },
  },
  "delta, nothing left out": {
    compression: { treatments: [{ delta: true, pack: false, dedup: false }], cacheBytes: LARGE },
  },
  "delta, zstd": {
    compression: { treatments: [{ delta: true, pack: true, dedup: true }], cacheBytes: LARGE },
  },
  auto: {
    compression: {
      treatments: [
        { delta: true, pack: true, dedup: true },
        { delta: true, pack: false, dedup: true },
        { delta: false, pack: true, dedup: false },
        { delta: false, pack: false, dedup: false },
      ],
      cacheBytes: LARGE,
    },
  },
  "delta, a small cache": {
    compression: { treatments: [{ delta: true, pack: false, dedup: true }], cacheBytes: SMALL },
  },
  "delta, no room at all": {
    compression: { treatments: [{ delta: true, pack: false, dedup: true }], cacheBytes: 1 },
  },
  "delta, sync": {
    commit: "sync",
    compression: { treatments: [{ delta: true, pack: false, dedup: true }], cacheBytes: LARGE },
  },
  "delta, little is held": {
    maxInFlightBytes: 2 * PAGE_BYTES,
    compression: { treatments: [{ delta: true, pack: false, dedup: true }], cacheBytes: LARGE },
  },
};

const BLOCKS = [["a", 8 * PAGE_BYTES], ["b", 4 * PAGE_BYTES]] as const;

/** One record of a made-up history. */
interface Change {
  readonly block: number;
  readonly page: number;
  readonly kind: "page" | "few" | "same" | "zero" | "fill" | "xbzrle";
  readonly seed: number;
}

const change: fc.Arbitrary<Change> = fc.record({
  block: fc.nat(1),
  page: fc.nat(7),
  kind: fc.constantFrom("page", "few", "few", "same", "same", "zero", "fill", "xbzrle"),
  seed: fc.nat(255),
});
const changes = fc.array(change, { maxLength: 20 });

/** Writes histories down as QEMU would, and remembers what each page holds. */
class Guest {
  readonly #pages = new Map<string, Uint8Array>();
  #last = -1;

  full(list: readonly Change[]): Uint8Array {
    this.#last = -1;
    const every = BLOCKS.flatMap(([, bytes], block) =>
      Array.from({ length: bytes / PAGE_BYTES }, (_, page): Change => {
        return { block, page, kind: "same", seed: 0 };
      })
    );
    return concat(
      [HEADER, configuration(), ramSection("START", memSize(BLOCKS))],
      [ramSection("END", this.records([...every, ...list])), deviceState(1), VMDESC],
    );
  }

  checkpoint(seed: number, list: readonly Change[]): Uint8Array {
    const records = this.records(list);
    // A checkpoint without any page has records that are no pages.
    return records.length === 0
      ? checkpoint(seed, new Uint8Array(0))
      : checkpoint(seed, ...records);
  }

  records(list: readonly Change[]): Part[] {
    return list.map(({ block, page: wide, kind, seed }): Part => {
      const page = wide % (BLOCKS[block][1] / PAGE_BYTES);
      const key = `${block} ${page}`;
      const named = block === this.#last ? undefined : BLOCKS[block][0];
      this.#last = block;
      const before = this.#pages.get(key) ?? new Uint8Array(PAGE_BYTES);
      switch (kind) {
        case "zero":
        case "fill":
          this.#pages.set(key, new Uint8Array(PAGE_BYTES).fill(kind === "zero" ? 0 : seed));
          return zero(page, named, kind === "zero" ? 0 : seed);
        case "xbzrle": {
          const after = before.slice();
          after.set([1, 2, seed], 5);
          this.#pages.set(key, after);
          return xbzrle(page, Uint8Array.of(5, 3, 1, 2, seed), named);
        }
      }
      const after = kind === "page" ? pageOf(seed) : before.slice();
      if (kind === "few") {
        after[seed * 4 % PAGE_BYTES] ^= 1;
        after[(seed * 4 + 3) % PAGE_BYTES] ^= 0x80;
        after[PAGE_BYTES - 1] ^= seed;
      }
      this.#pages.set(key, after);
      const flags = RAM_SAVE_FLAG.PAGE | (named === undefined ? RAM_SAVE_FLAG.CONTINUE : 0);
      return concat(
        record(page * PAGE_BYTES, flags),
        named === undefined ? [] : name(named),
        after,
      );
    });
  }
}

for (const [mode, options] of Object.entries(MODES)) {
  Deno.test(`any history of checkpoints arrives as it was: ${mode}`, async () => {
    await fc.assert(
      fc.asyncProperty(changes, fc.array(changes, { maxLength: 8 }), fc.nat(4000), async (
        first,
        later,
        cut,
      ) => {
        const guest = new Guest();
        const link = await Loopback.open({ stream: "colo", ...options });
        const vm = new LoadedVm();
        const pieces = [guest.full(first), ...later.map((list, i) => guest.checkpoint(i, list))];
        for (const piece of pieces) {
          vm.load(piece);
          // In two reads: a checkpoint is held from one to the next.
          const at = cut % piece.length;
          link.feed(piece.slice(0, at));
          link.feed(piece.slice(at));
          new LoadedVm().load(composed(link.replica)).equals(vm);
        }
        assert.equal(link.replica.committed, pieces.length);
      }),
      { numRuns: 40, seed: 4 },
    );
  });

  Deno.test(`any snapshots and sessions arrive as they were: ${mode}`, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(changes, fc.boolean()), { minLength: 2, maxLength: 6 }),
        async (
          rounds,
        ) => {
          const guest = new Guest();
          let link = await Loopback.open({ stream: "snapshots", ...options });
          for (const [list, reconnects] of rounds) {
            if (reconnects) {
              // The old session breaks inside of a transaction that nobody gets.
              link.feed(guest.full(list).slice(0, 5000));
              link.secondary.abort();
              link = await Loopback.open({
                stream: "snapshots",
                ...options,
                replica: link.replica,
              });
            }
            const snapshot = guest.full(list);
            link.feed(snapshot);
            const truth = new LoadedVm().load(snapshot);
            new LoadedVm().load(composed(link.replica)).equals(truth);
          }
        },
      ),
      { numRuns: 30, seed: 5 },
    );
  });

  Deno.test(`a sender that comes back inside a checkpoint goes on rightly: ${mode}`, async () => {
    const sessions = fc.array(fc.array(changes, { minLength: 1, maxLength: 4 }), {
      minLength: 2,
      maxLength: 3,
    });
    await fc.assert(
      fc.asyncProperty(sessions, fc.integer({ min: 9, max: 9000 }), async (lists, cut) => {
        const guest = new Guest();
        let replica: Loopback["replica"] | undefined;
        for (const checkpoints of lists) {
          const link = await Loopback.open({ stream: "colo", ...options, replica });
          replica = link.replica;
          const first = guest.full([]);
          link.feed(first);
          const vm = new LoadedVm().load(first);
          checkpoints.forEach((list, i) => {
            const piece = guest.checkpoint(i, list);
            vm.load(piece);
            link.feed(piece);
          });
          new LoadedVm().load(composed(replica)).equals(vm);
          // This one is cut, and what it says of pages is never committed.
          const lost = guest.checkpoint(9, checkpoints[0]);
          link.feed(lost.slice(0, cut % lost.length));
          link.secondary.abort();
          new LoadedVm().load(composed(replica)).equals(vm);
        }
      }),
      { numRuns: 25, seed: 7 },
    );
  });

  Deno.test(`QEMU's own checkpoints arrive as they were: ${mode}`, async () => {
    for (const recording of ["colo-11.1-dirty", "colo-11.1-xbzrle"]) {
      const stream = loadStream(recording);
      const cacheBytes = 4 * (options.compression?.cacheBytes ?? 0);
      const compression: PrimaryCompression | undefined = options.compression &&
        { ...options.compression, cacheBytes };
      const link = await Loopback.open({ ...options, compression });
      for (let at = 0; at < stream.length; at += 100_000) {
        link.feed(stream.slice(at, at + 100_000));
      }
      assert.ok(link.replica.committed > 4);
      const vm = new LoadedVm().load(stream);
      new LoadedVm().load(composed(link.replica)).equals(vm);
    }
  });
}

const FEW = Uint8Array.of(9, 1, 0x55);

/** Records of whole pages, the first of which names the block. */
function pages(...list: readonly (readonly [number, Uint8Array])[]): Part[] {
  return list.map(([number, content], i) => {
    const flags = RAM_SAVE_FLAG.PAGE | (i === 0 ? 0 : RAM_SAVE_FLAG.CONTINUE);
    return concat(record(number * PAGE_BYTES, flags), i === 0 ? name("pc.ram") : [], content);
  });
}

Deno.test("a page that changed a little travels as that, one that did not not at all", async () => {
  const link = await Loopback.open(MODES.delta);
  link.feed(fullStream(1));
  link.feed(checkpoint(2, ...pages([0, pageOf(1)], [7, pageOf(2)])));
  const { counters } = link.primary;
  const before = { ...counters };
  assert.equal(before.deltaPages, 0);
  const changed = pageOf(1);
  changed[700] ^= 3;
  link.feed(checkpoint(3, ...pages([0, changed], [7, pageOf(2)]), zero(5)));
  assert.deepEqual([counters.pages - before.pages, counters.deltaPages], [1, 1]);
  assert.equal(counters.unchangedPages, 2);
  assert.ok(counters.lastPayloadBytes < PAGE_BYTES / 2);
  assert.ok(counters.streamBytes - before.streamBytes > 2 * PAGE_BYTES);
});

Deno.test("a page that is not the cache's to know travels whole", async () => {
  const link = await Loopback.open(MODES.delta);
  link.feed(fullStream(1));
  link.feed(checkpoint(2, ...pages([0, pageOf(1)])));
  // QEMU's own difference: the content it makes is the receiver's alone.
  link.feed(checkpoint(3, xbzrle(0, FEW, "pc.ram")));
  const after = pageOf(1);
  after[9] = 0x55;
  link.feed(checkpoint(4, ...pages([0, after])));
  assert.equal(link.primary.counters.deltaPages, 0);
  assert.equal(link.primary.counters.unchangedPages, 0);
  link.feed(checkpoint(5, ...pages([0, after])));
  assert.equal(link.primary.counters.unchangedPages, 1);
});

Deno.test("QEMU has its answer before a checkpoint is forwarded", async () => {
  const link = await Loopback.open({ stream: "colo", ...MODES.delta });
  link.feed(fullStream(1));
  link.takeReplies();
  const bytes = checkpoint(2, ...pages([0, pageOf(9)]));
  assert.equal(link.primary.receiveStream(bytes, 0, bytes.length, link.now), bytes.length);
  assert.equal(link.primary.takeReplies().length, 3, "REPLY, RECEIVED and LOADED");
  assert.ok(link.primary.holding);
  assert.equal(link.primary.inFlight.length, 0);
  link.pump();
  assert.ok(!link.primary.holding);
  assert.equal(link.replica.committed, 2);
});

Deno.test("a QEMU that stalls in a checkpoint does not keep heartbeats back", async () => {
  const link = await Loopback.open({ stream: "colo", ...MODES.delta });
  link.feed(fullStream(1));
  const bytes = checkpoint(2, ...pages([0, pageOf(9)], [1, pageOf(8)]));
  link.feed(bytes.slice(0, bytes.length - 200));
  link.now += 50;
  link.tick();
  assert.ok(link.primary.holding);
  link.wire.length = 0;
  link.now += 1000;
  link.tick();
  assert.ok(!link.primary.holding);
  assert.ok(link.wire.some((piece) => piece[2] === TXN.HEARTBEAT));
  link.feed(bytes.slice(-200));
  const vm = new LoadedVm().load(fullStream(1)).load(bytes);
  new LoadedVm().load(composed(link.replica)).equals(vm);
});

Deno.test("a full stream is packed where the peer cannot keep up, and only there", async () => {
  const treatments = [{ delta: true, pack: true, dedup: true }, {
    delta: true,
    pack: false,
    dedup: true,
  }];
  for (const pendingBytes of [0, 2 ** 20]) {
    const link = await Loopback.open({
      compression: { treatments, cacheBytes: LARGE },
    });
    const stream = fullStream(1);
    link.primary.receiveStream(stream, 0, stream.length / 2, link.now);
    const commands = link.primary.takeOutput(pendingBytes).map((piece) => piece[2]);
    assert.equal(commands.includes(TXN.PACKED), pendingBytes > 0);
  }
});

Deno.test("what a cancelled transaction carried is not built upon, nor its block's name", () => {
  const sent: Uint8Array[] = [];
  const txn = {
    open: true,
    begin: () => 1,
    cancel: () => {},
    forward: (bytes: Uint8Array) => void sent.push(bytes.slice()),
  } as unknown as TxnSender;
  const counters = {
    committed: 0,
    pages: 0,
    zeroPages: 0,
    unchangedPages: 0,
    stateBytes: 0,
    deltaPages: 0,
    streamBytes: 0,
    payloadBytes: 0,
    lastPayloadBytes: 0,
  };
  const forwarder = new StreamForwarder(txn, counters, new DeltaCache(LARGE));
  forwarder.deltas = forwarder.dedup = true;
  const bytes = concat(record(0, RAM_SAVE_FLAG.PAGE | RAM_SAVE_FLAG.CONTINUE), pageOf(3));
  forwarder.open(new Uint8Array(0), 0);
  forwarder.beginStream(0);
  forwarder.beginFull([{ name: "a", lengthBytes: 2 * PAGE_BYTES }], PAGE_BYTES, 0);
  forwarder.end(0);
  const send = () => {
    sent.length = 0;
    forwarder.open(bytes, 0);
    forwarder.beginCheckpoint(0);
    const extent = { endOffset: bytes.length, at: 8, lengthBytes: PAGE_BYTES };
    forwarder.page({ ...blankRamRecord(), bytes, ...extent });
    forwarder.end(bytes.length);
    return concat(...sent).length;
  };
  const whole = 8 + 2 + PAGE_BYTES;
  assert.equal(send(), whole, "with its name, as none was said before");
  assert.equal(send(), 0, "the receiver has it");
  forwarder.beginCheckpoint(0);
  forwarder.cancel();
  assert.equal(send(), whole, "it may not have it any more");
});
