import assert from "node:assert/strict";
import { listStreams, loadStream } from "../../lab/recording/streams.ts";
import { StateError, WireError } from "../../errors.ts";
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
  REQUEST,
  u16,
  u32,
  VMDESC,
  xbzrle,
  zero,
} from "../../qemu/testing/synthetic_stream.ts";
import { COLO_MESSAGE } from "../../qemu/wire.ts";
import { composed, fingerprint, LoadedVm, Loopback } from "../testing/loopback.ts";
import { Replica } from "./replica.ts";

const FULL = { full: true, based: false };
const BASED = { full: true, based: true };
const CHECKPOINT = { full: false, based: false };

function apply(replica: Replica, kind: typeof FULL, ...parts: readonly Part[]) {
  const bytes = concat(...parts);
  replica.begin(kind);
  replica.receive(bytes, 0, bytes.length);
  return replica.commit(replica.committed + 1);
}

/** A full stream in which only these records stand. */
function sparse(
  blocks: readonly (readonly [string, number])[],
  bits: number,
  ...records: readonly Part[]
): Uint8Array {
  return concat(
    [HEADER, configuration("toy", bits), ramSection("START", memSize(blocks))],
    [ramSection("END", records), deviceState(1), VMDESC],
  );
}

function refuses(replica: Replica, kind: typeof FULL, bytes: Uint8Array, message: RegExp) {
  const before = [fingerprint(replica), replica.memoryBytes];
  replica.begin(kind);
  assert.throws(() => {
    replica.receive(bytes, 0, bytes.length);
    replica.commit(replica.committed + 1);
  }, (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, message);
    return true;
  });
  replica.abort();
  assert.deepEqual([fingerprint(replica), replica.memoryBytes], before);
}

Deno.test("what a replica composes loads as the recorded VM itself would", async () => {
  for (const { name } of listStreams()) {
    if (/no-vmdesc|shared|dirty-bitmap/.test(name)) continue;
    const stream = loadStream(name);
    const link = await Loopback.open();
    for (let at = 0; at < stream.length; at += 77_777) {
      link.feed(stream.slice(at, at + 77_777));
    }
    const bytes = composed(link.replica);
    new LoadedVm().load(stream).equals(new LoadedVm().load(bytes));
    // Composing what was composed changes nothing more.
    const again = new Replica(1e9);
    apply(again, FULL, bytes);
    assert.deepEqual(composed(again), bytes, name);
  }
});

Deno.test("a plain stream and checkpoints on it compose to what they add up to", () => {
  const replica = new Replica(1e9);
  const truth = new LoadedVm();
  const first = fullStream(3);
  assert.deepEqual(apply(replica, FULL, first), { pages: 5, zeroPages: 7, deviceStateBytes: 27 });
  truth.load(first).equals(new LoadedVm().load(composed(replica)));
  for (let seed = 10; seed < 20; seed++) {
    const records = [
      page(seed % 8, seed, "pc.ram"),
      xbzrle(seed % 8, Uint8Array.of(1, 1, seed)),
      xbzrle(1, Uint8Array.of(seed, 1, seed)),
      zero(seed % 7),
      page(seed % 3, seed, "rom"),
      zero(seed % 3, undefined, seed % 2),
    ];
    apply(replica, CHECKPOINT, checkpointBody(seed, records));
    truth.load(checkpoint(seed, records)).equals(new LoadedVm().load(composed(replica)));
  }
});

Deno.test("a page of zeros costs nothing, and one that becomes zeros gives its memory back", () => {
  const replica = new Replica(1e9);
  apply(replica, FULL, sparse(BLOCKS, 10, [0, 1, 2, 3].map((n) => zero(n, "pc.ram"))));
  assert.equal(replica.memoryBytes, 0);
  apply(replica, CHECKPOINT, checkpointBody(1, page(0, 1, "pc.ram"), page(1, 2), zero(2, "rom")));
  assert.equal(replica.memoryBytes, 2 * PAGE_BYTES);
  apply(replica, CHECKPOINT, checkpointBody(1, zero(0, "pc.ram"), zero(1)));
  assert.equal(replica.memoryBytes, 0);
  apply(replica, CHECKPOINT, checkpointBody(1, zero(0, "pc.ram", 0xff)));
  assert.equal(replica.memoryBytes, PAGE_BYTES);
});

Deno.test("a 64 GiB guest with a handful of pages takes a handful of pages", () => {
  const blocks = [["pc.ram", 64 * 2 ** 30], ["rom", 8192]] as const;
  const at = (number: number) =>
    concat(page(number * 4, number, "pc.ram"), new Uint8Array(3 * PAGE_BYTES));
  const pages = [0, 1, 9_999_999, 2 ** 24 - 1];
  const replica = new Replica(1e9);
  let slabBytes = 0;
  const counted = new Replica(1e9, (bytes) => {
    slabBytes += bytes;
    return new Uint8Array(bytes);
  });
  for (const each of [replica, counted]) apply(each, FULL, sparse(blocks, 12, pages.map(at)));
  assert.equal(replica.memoryBytes, pages.length * 4096);
  assert.ok(slabBytes <= 2 * 2 ** 20, `${slabBytes}`);
  assert.deepEqual(pages.map((n) => replica.image!.nextPage(0, n)), pages);
  assert.equal(replica.image!.nextPage(0, 2), 9_999_999);
  assert.equal(replica.image!.countPages(0), 4);
});

Deno.test("a new full state replaces the old one and frees it", () => {
  const replica = new Replica(1e9);
  apply(replica, FULL, fullStream(1));
  const memory = replica.memoryBytes;
  apply(replica, FULL, fullStream(2));
  assert.equal(replica.memoryBytes, memory);
  // Another machine altogether, without a CONFIGURATION and so with pages of 4 KiB.
  const other = new Replica(1e9);
  apply(other, FULL, sparse([["pc.ram", 4096]], 12, zero(0, "pc.ram", 1)));
  apply(other, FULL, [
    [HEADER, ramSection("START", memSize([["other", 4096]])), ramSection("END")],
    [deviceState(1), VMDESC],
  ]);
  assert.equal(other.memoryBytes, 0);
  assert.deepEqual(other.blocks, [{ name: "other", lengthBytes: 4096 }]);
  const vm = new LoadedVm().load(composed(other));
  assert.equal(vm.configuration.length, 0, "the old machine's CONFIGURATION is gone too");
});

Deno.test("a based transaction keeps the pages that it does not mention", () => {
  const replica = new Replica(1e9);
  apply(replica, FULL, fullStream(1));
  const before = new LoadedVm().load(composed(replica));
  apply(replica, BASED, sparse(BLOCKS, 10, page(5, 77, "pc.ram"), zero(7)));
  const behind = new LoadedVm().load(composed(replica));
  assert.ok(behind.pages.has("pc.ram 0") && behind.pages.has("pc.ram 5120"));
  assert.equal(behind.pages.size, before.pages.size);
  assert.ok(!behind.pages.has("pc.ram 7168"));
});

Deno.test("an aborted transaction leaves no trace, not even in memory", () => {
  const replica = new Replica(1e9);
  for (const kind of [FULL, BASED, CHECKPOINT]) {
    const bytes = kind === CHECKPOINT ? checkpointBody(50) : fullStream(50);
    const before = [fingerprint(replica), replica.memoryBytes];
    for (const length of [0, 1, 100, 3000, bytes.length - 1, bytes.length]) {
      if (replica.committed === 0 && kind !== FULL) continue;
      replica.begin(kind);
      replica.receive(bytes, 0, Math.min(length, bytes.length));
      replica.abort();
      replica.abort();
      assert.deepEqual([fingerprint(replica), replica.memoryBytes], before);
    }
    if (kind === FULL) apply(replica, FULL, fullStream(1));
  }
});

Deno.test("a transaction beyond its limit is refused, and the replica is as it was", () => {
  const replica = new Replica(4 * PAGE_BYTES);
  const pages = (count: number) =>
    Array.from({ length: count }, (_, n) => page(n, n + 1, n === 0 ? "pc.ram" : undefined));
  const fills = (count: number) =>
    Array.from({ length: count }, (_, n) => zero(n, n === 0 ? "pc.ram" : undefined, 9));
  const runs = (count: number) =>
    Array.from({ length: count }, (_, n) => {
      return xbzrle(n, Uint8Array.of(1, 1, 7), n === 0 ? "pc.ram" : undefined);
    });
  refuses(replica, FULL, sparse(BLOCKS, 10, pages(5)), /more than 4096 bytes .*too-large/);
  apply(replica, FULL, sparse(BLOCKS, 10, pages(4)));
  refuses(replica, CHECKPOINT, checkpointBody(1, pages(5)), /too-large/);
  refuses(replica, CHECKPOINT, checkpointBody(1, fills(5)), /too-large/);
  refuses(replica, CHECKPOINT, checkpointBody(1, runs(5)), /too-large/);
  // The same page again and again is one page.
  apply(replica, CHECKPOINT, checkpointBody(1, pages(4), pages(4), fills(4), runs(4)));
});

Deno.test("bytes behind the end of a transaction's state are refused", () => {
  const replica = new Replica(1e9);
  const replyless = [u32(COLO_MESSAGE.CHECKPOINT_REQUEST)];
  refuses(replica, FULL, concat(fullStream(1), 0), /behind the end/);
  refuses(replica, FULL, concat(fullStream(1), HEADER), /behind the end/);
  apply(replica, FULL, fullStream(1));
  for (const trailing of [[0], REQUEST, HEADER, "QE", replyless, checkpoint(9)] as Part[]) {
    refuses(replica, CHECKPOINT, concat(checkpointBody(1), trailing), /behind the end/);
    const body = checkpointBody(1);
    replica.begin(CHECKPOINT);
    replica.receive(body, 0, body.length);
    const rest = concat(trailing);
    assert.throws(() => replica.receive(rest, 0, rest.length), /behind the end/);
    replica.abort();
  }
});

Deno.test("a transaction that stops short is refused at COMMIT", () => {
  const replica = new Replica(1e9);
  refuses(replica, FULL, fullStream(1).subarray(0, -1), /the transaction ends inside device state/);
  refuses(replica, FULL, HEADER, /ends inside the place between sections/);
  refuses(replica, FULL, new Uint8Array(0), /truncated/);
  apply(replica, FULL, fullStream(1));
  refuses(replica, CHECKPOINT, checkpointBody(1).subarray(0, 100), /inside a checkpoint, a ram/);
});

Deno.test("what does not fit the replica is refused", () => {
  const replica = new Replica(1e9);
  assert.throws(() => replica.begin(CHECKPOINT), /checkpoint before any full state/);
  refuses(replica, BASED, fullStream(1), /other RAM blocks/);
  apply(replica, FULL, fullStream(1));
  refuses(replica, BASED, sparse([["pc.ram", 4096]], 10), /other RAM blocks/);
  refuses(replica, BASED, sparse([...BLOCKS].reverse(), 10), /other RAM blocks/);
  refuses(replica, CHECKPOINT, fullStream(1), /0x51/);
  const flush = concat(u32(0), u32(0x200));
  refuses(replica, CHECKPOINT, checkpointBody(1, flush), /MULTIFD_FLUSH record.*outside/);
  const bad = xbzrle(0, concat(u16(0)), "pc.ram");
  refuses(replica, CHECKPOINT, checkpointBody(1, bad), /XBZRLE has an empty run/);
  // Pages of another size would be cut, or run over.
  const wide = sparse([["pc.ram", 8192], ["rom", 4096]], 11);
  const narrow = new Replica(1e9);
  apply(narrow, FULL, sparse([["pc.ram", 8192], ["rom", 4096]], 10));
  refuses(narrow, BASED, wide, /other RAM blocks/);
  refuses(narrow, FULL, wide, /another page size/);
  refuses(replica, FULL, loadStream("plain-11.1-shared-ram"), /shared with a file/);
});

Deno.test("an XBZRLE fault is told where the difference lies", () => {
  const replica = new Replica(1e9);
  apply(replica, FULL, fullStream(1));
  const body = checkpointBody(1, xbzrle(0, Uint8Array.of(5), "pc.ram"));
  const differenceAt = concat(checkpointBody(1)).length && body.findIndex((_, at) => {
        return body[at] === 1 && body[at + 1] === 0 && body[at + 2] === 1 && body[at + 3] === 5;
      }) + 3;
  replica.begin(CHECKPOINT);
  assert.throws(() => replica.receive(body, 0, body.length), (error) => {
    assert.ok(error instanceof WireError);
    assert.equal(error.offset, differenceAt + 1);
    return true;
  });
});

Deno.test("calls out of order are bugs of ours", () => {
  const replica = new Replica(1e9);
  assert.throws(() => [...replica.compose()], StateError);
  assert.throws(() => replica.commit(1), StateError);
  assert.throws(() => replica.receive(new Uint8Array(1), 0, 1), StateError);
  replica.begin(FULL);
  assert.throws(() => replica.begin(FULL), StateError);
});
