/**
 * For tests: what every home of a replica's pages must do, whatever it is made of.
 *
 * DESIGN's invariant 2 first: a cut at any byte leaves the replica at the last committed transaction.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { listStreams, loadStream } from "../recording/streams.ts";
import { Carry } from "../../bytes/carry.ts";
import { KemariError } from "../../errors.ts";
import {
  BLOCKS,
  checkpoint,
  checkpointBody,
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
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import {
  composed,
  fingerprint,
  LoadedVm,
  Loopback,
  type LoopbackConfig,
} from "../../replica/testing/loopback.ts";
import type { ReplicaStore } from "../../replica/pages/page_store.ts";
import { Replica } from "../../replica/secondary/replica.ts";
import { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import { Secondary } from "../../replica/secondary/secondary.ts";

const LIMIT = 1e8;

/** One kind of store. */
export interface StoreKind {
  readonly name: string;
  /** Makes an empty one. */
  open(): ReplicaStore;
  /** Takes away what `open` has made. */
  close(store: ReplicaStore): void;
  /** Every how many bytes a session is cut: stores cost more or less to make. */
  readonly cutEvery: number;
}

/** Runs with a replica in a new store. */
async function withReplica(
  kind: StoreKind,
  body: (replica: Replica) => void | Promise<void>,
  allocate?: (bytes: number) => Uint8Array,
): Promise<void> {
  const store = kind.open();
  try {
    await body(new Replica(LIMIT, allocate, new SecondaryTaps(new Map(), new Set()), store));
  } finally {
    kind.close(store);
  }
}

/** One slab for all the small replicas, one after another: it is never clean, which they may not notice. */
const slab = new Uint8Array(2 * 2 ** 20).fill(0xa5);
function dirtySlab() {
  let given = false;
  return () => {
    assert.equal(given, false, "a small replica needs one slab");
    given = true;
    return slab;
  };
}

/** A secondary that nobody answers. */
function receiver(replica: Replica): Secondary {
  const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
  return new Secondary(
    replica,
    counters,
    {
      heartbeatMs: 1000,
      graceMs: 5000,
      maxTransactionBytes: LIMIT,
      committed: replica.committed,
      software: "cut",
    },
    0,
    () => 0,
  );
}

/** What a session sent, and what the replica was after each of its transactions. */
async function session(
  pieces: readonly Uint8Array[],
  replica: Replica,
  options: LoopbackConfig = {},
) {
  const link = await Loopback.open({ ...options, replica });
  const states = ["nothing"];
  const memory = [0];
  for (const piece of pieces) {
    link.feed(piece);
    if (link.replica.committed === states.length) {
      states.push(fingerprint(link.replica));
      memory.push(link.replica.memoryBytes);
    }
  }
  return { wire: concat(...link.wire), states, memory };
}

/** Where each transaction's last byte is, by walking the frames. */
function commitEnds(wire: Uint8Array): number[] {
  const ends: number[] = [];
  const view = new DataView(wire.buffer);
  for (let at = 0; at < wire.length;) {
    const next = at + HEADER_BYTES + view.getUint32(at + 16);
    if (wire[at + 2] === TXN.COMMIT) ends.push(next);
    at = next;
  }
  return ends;
}

const SESSION = [
  fullStream(1),
  checkpoint(5),
  checkpoint(6, page(2, 9, "pc.ram"), xbzrle(2, Uint8Array.of(3, 2, 1, 1)), page(1, 9, "rom")),
  checkpoint(7),
];

/** In which ways the same session is sent. */
const WAYS: Readonly<Record<string, LoopbackConfig>> = {
  "": {},
  ", less of it": {
    compression: { treatments: [{ delta: true, pack: false, dedup: true }], cacheBytes: 2 ** 20 },
  },
  ", less of it and packed": {
    compression: { treatments: [{ delta: true, pack: true, dedup: true }], cacheBytes: 2 ** 20 },
  },
};

/** Registers the tests for one kind of store. */
export function testStore(kind: StoreKind): void {
  const test = (name: string, body: () => void | Promise<void>) => {
    Deno.test(`${kind.name}: ${name}`, body);
  };

  for (const [way, options] of Object.entries(WAYS)) {
    test(`a session cut at any byte leaves the last committed transaction, whole${way}`, () =>
      withReplica(kind, async (first) => {
        const { wire, states, memory } = await session(SESSION, first, options);
        const ends = commitEnds(wire);
        assert.equal(ends.length, 4);
        const near = (length: number) => ends.some((end) => Math.abs(end - length) < 3);
        for (let length = 0; length <= wire.length; length++) {
          if (length % kind.cutEvery !== 0 && !near(length)) continue;
          await withReplica(kind, (replica) => {
            const secondary = receiver(replica);
            const taken = secondary.receive(wire.slice(0, length), 0, length, 0);
            assert.ok(taken <= length);
            const committed = ends.filter((end) => end <= length).length;
            // What is staged shows nowhere, before the abort and after it.
            assert.equal(fingerprint(replica), states[committed], `cut at ${length}`);
            secondary.abort();
            assert.equal(fingerprint(replica), states[committed], `cut at ${length}, aborted`);
            assert.equal(replica.memoryBytes, memory[committed], `cut at ${length}, memory`);
          }, dirtySlab());
        }
      }));
  }

  test("a recorded session cut at random bytes leaves the last committed transaction", () =>
    withReplica(kind, async (first) => {
      const stream = loadStream("colo-11.1-dirty");
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < stream.length; at += 20_000) pieces.push(stream.slice(at, at + 20_000));
      const { wire, states } = await session(pieces, first);
      const ends = commitEnds(wire);
      assert.equal(ends.length, 9);
      const cuts = ends.flatMap((end) => [end - 1, end, end + 1]);
      for (let i = 1; i < 12; i++) cuts.push(Math.floor(wire.length * i / 12) + i);
      cuts.sort((a, b) => a - b);
      for (const cut of cuts.filter((each) => each <= wire.length)) {
        const committed = ends.filter((end) => end <= cut).length;
        await withReplica(kind, (fresh) => {
          const secondary = receiver(fresh);
          secondary.receive(wire.slice(0, cut), 0, cut, 0);
          secondary.abort();
          assert.equal(fingerprint(fresh), states[committed]);
        });
      }
    }));

  for (const [way, options] of Object.entries(WAYS)) {
    test(`no damaged byte gets into the replica${way}`, () =>
      withReplica(kind, async (first) => {
        const { wire, states } = await session(SESSION, first, options);
        let refused = 0;
        let tried = 0;
        for (let at = 0; at < wire.length; at += Math.max(3, kind.cutEvery)) {
          const damaged = wire.slice();
          damaged[at] ^= 1 << at % 8;
          tried++;
          await withReplica(kind, (replica) => {
            const secondary = receiver(replica);
            try {
              const carry = new Carry();
              const receive = (b: Uint8Array, start: number, end: number) =>
                secondary.receive(b, start, end, 0);
              carry.feed(damaged, 0, damaged.length, receive);
            } catch (error) {
              assert.ok(error instanceof KemariError, `${(error as Error).stack}`);
              refused++;
            }
            secondary.abort();
            assert.equal(fingerprint(replica), states[replica.committed], `damage at ${at}`);
          }, dirtySlab());
        }
        // What HELLO says of times and names may be anything.
        assert.ok(refused > tried * 0.9, `${refused} of ${tried}`);
      }));
  }

  test("what it composes loads as the recorded VM itself would", async () => {
    for (const { name } of listStreams()) {
      if (/no-vmdesc|shared|dirty-bitmap/.test(name)) continue;
      const stream = loadStream(name);
      await withReplica(kind, async (replica) => {
        const link = await Loopback.open({ replica });
        for (let at = 0; at < stream.length; at += 77_777) {
          link.feed(stream.slice(at, at + 77_777));
        }
        new LoadedVm().load(stream).equals(new LoadedVm().load(composed(replica)));
      });
    }
  });

  test("any transactions, some of them dropped, add up to what they say", async () => {
    const change = fc.record({
      block: fc.constantFrom("pc.ram", "rom"),
      number: fc.nat(7),
      seed: fc.nat(250),
      form: fc.constantFrom("page", "zero", "fill", "xbzrle"),
    });
    const transaction = fc.record({
      full: fc.boolean(),
      dropped: fc.boolean(),
      changes: fc.array(change, { maxLength: 12 }),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(transaction, { maxLength: 8 }),
        (list) =>
          withReplica(kind, (replica) => {
            let truth = new LoadedVm();
            for (const { full, dropped, changes } of [FIRST, ...list]) {
              const records = recordList(changes);
              const seed = changes.length;
              const before = fingerprint(replica);
              const bytes = full
                ? concat(
                  [HEADER, configuration(), ramSection("START", memSize())],
                  [ramSection("END", records), deviceState(seed), VMDESC],
                )
                : checkpointBody(seed, records);
              replica.begin({ full, based: false });
              replica.receive(bytes, 0, bytes.length);
              assert.equal(fingerprint(replica), before, "what is staged does not show");
              if (dropped) {
                replica.abort();
                assert.equal(fingerprint(replica), before, "what is dropped does not show");
                continue;
              }
              replica.commit(replica.committed + 1);
              if (full) truth = new LoadedVm();
              truth.load(full ? bytes : checkpoint(seed, records));
              truth.equals(new LoadedVm().load(composed(replica)));
            }
          }),
      ),
      { numRuns: 40, seed: 5 },
    );
  });

  test("a page of zeros costs nothing, and one that becomes zeros gives its room back", () =>
    withReplica(kind, (replica) => {
      const sparse = concat(
        [HEADER, configuration(), ramSection("START", memSize())],
        [ramSection("END", [0, 1, 2, 3].map((n) => zero(n, "pc.ram"))), deviceState(1), VMDESC],
      );
      apply(replica, true, sparse);
      assert.equal(replica.memoryBytes, 0);
      apply(replica, false, checkpointBody(1, page(0, 1, "pc.ram"), page(1, 2), zero(2, "rom")));
      assert.equal(replica.memoryBytes, 2 * PAGE_BYTES);
      apply(replica, false, checkpointBody(1, zero(0, "pc.ram"), zero(1)));
      assert.equal(replica.memoryBytes, 0);
      assert.equal(replica.image!.nextPage(0, 0), BLOCKS[0][1] / PAGE_BYTES);
    }));
}

interface Change {
  readonly block: string;
  readonly number: number;
  readonly seed: number;
  readonly form: string;
}

const FIRST: { full: boolean; dropped: boolean; changes: Change[] } = {
  full: true,
  dropped: false,
  changes: [{ block: "pc.ram", number: 1, seed: 3, form: "page" }],
};

function recordList(changes: readonly Change[]): Part[] {
  return changes.map(({ block, number, seed, form }) => {
    const at = block === "rom" ? number % 3 : number;
    if (form === "page") return page(at, seed, block);
    if (form === "xbzrle") return xbzrle(at, Uint8Array.of(seed % 100, 1, seed), block);
    return zero(at, block, form === "zero" ? 0 : seed);
  });
}

function apply(replica: Replica, full: boolean, bytes: Uint8Array): void {
  replica.begin({ full, based: false });
  replica.receive(bytes, 0, bytes.length);
  replica.commit(replica.committed + 1);
}
