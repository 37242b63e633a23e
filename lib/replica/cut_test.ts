/** DESIGN's invariant 2: a cut at any byte leaves the replica at the last committed transaction. */
import assert from "node:assert/strict";
import { loadStream } from "../../fixtures/streams.ts";
import { Carry } from "../bytes/carry.ts";
import { KemariError } from "../errors.ts";
import { checkpoint, concat, fullStream, page, xbzrle } from "../qemu/synthetic_stream.ts";
import { HEADER_BYTES, TXN } from "../txn/wire.ts";
import { fingerprint, Loopback, type LoopbackOptions } from "./loopback.ts";
import { Replica } from "./replica.ts";
import { Secondary } from "./secondary.ts";

const LIMIT = 1e8;

/** One slab for all the small replicas, one after another: it is never clean, which they may not notice. */
const slab = new Uint8Array(2 * 2 ** 20).fill(0xa5);
const smallReplica = () => {
  let given = false;
  return new Replica(LIMIT, () => {
    assert.equal(given, false, "a small replica needs one slab");
    given = true;
    return slab;
  });
};

/** A secondary that nobody answers. */
function receiver(replica: Replica): Secondary {
  const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
  return new Secondary(replica, counters, {
    heartbeatMs: 1000,
    graceMs: 5000,
    maxTransactionBytes: LIMIT,
    committed: replica.committed,
    software: "cut",
  }, () => 0);
}

/** What a session sent, and what the replica was after each of its transactions. */
async function session(pieces: readonly Uint8Array[], options: LoopbackOptions = {}) {
  const link = await Loopback.open(options);
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
const WAYS: Readonly<Record<string, LoopbackOptions>> = {
  "": {},
  ", less of it": {
    compression: { treatments: [{ delta: true, pack: false }], dedup: true, cacheBytes: 2 ** 20 },
  },
  ", less of it and packed": {
    compression: { treatments: [{ delta: true, pack: true }], dedup: true, cacheBytes: 2 ** 20 },
  },
};

for (const [way, options] of Object.entries(WAYS)) {
  Deno.test(`a session cut at any byte leaves the last committed transaction, whole${way}`, async () => {
    const { wire, states, memory } = await session(SESSION, options);
    const ends = commitEnds(wire);
    assert.equal(ends.length, 4);
    for (let length = 0; length <= wire.length; length++) {
      const replica = smallReplica();
      const secondary = receiver(replica);
      const taken = secondary.receive(wire.slice(0, length), 0, length);
      assert.ok(taken <= length);
      const committed = ends.filter((end) => end <= length).length;
      // What is staged shows nowhere, before the abort and after it.
      assert.equal(fingerprint(replica), states[committed], `cut at ${length}`);
      secondary.abort();
      assert.equal(fingerprint(replica), states[committed], `cut at ${length}, aborted`);
      assert.equal(replica.memoryBytes, memory[committed], `cut at ${length}, memory`);
    }
  });
}

Deno.test("a recorded session cut at random bytes leaves the last committed transaction", async () => {
  const stream = loadStream("colo-11.1-dirty");
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < stream.length; at += 20_000) pieces.push(stream.slice(at, at + 20_000));
  const { wire, states } = await session(pieces);
  const ends = commitEnds(wire);
  assert.equal(ends.length, 9);
  const cuts = ends.flatMap((end) => [end - 1, end, end + 1]);
  for (let i = 1; i < 12; i++) cuts.push(Math.floor(wire.length * i / 12) + i);
  cuts.sort((a, b) => a - b);
  for (const cut of cuts.filter((each) => each <= wire.length)) {
    const committed = ends.filter((end) => end <= cut).length;
    const fresh = new Replica(LIMIT);
    const secondary = receiver(fresh);
    secondary.receive(wire.slice(0, cut), 0, cut);
    secondary.abort();
    assert.equal(fingerprint(fresh), states[committed]);
  }
});

for (const [way, options] of Object.entries(WAYS)) {
  Deno.test(`no damaged byte gets into the replica${way}`, async () => {
    const { wire, states } = await session(SESSION, options);
    let refused = 0;
    for (let at = 0; at < wire.length; at += 3) {
      const damaged = wire.slice();
      damaged[at] ^= 1 << at % 8;
      const replica = smallReplica();
      const secondary = receiver(replica);
      try {
        const carry = new Carry();
        carry.feed(damaged, 0, damaged.length, (b, start, end) => secondary.receive(b, start, end));
      } catch (error) {
        assert.ok(error instanceof KemariError, `${(error as Error).stack}`);
        refused++;
      }
      secondary.abort();
      assert.equal(fingerprint(replica), states[replica.committed], `damage at ${at}`);
    }
    // What HELLO says of times and names may be anything.
    assert.ok(refused > wire.length / 3 * 0.9, `${refused}`);
  });
}
