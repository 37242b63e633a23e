/** What a secondary does whose disk is full, or whose copy is not whole. */
import assert from "node:assert/strict";
import { TransportError, WireError } from "../../errors.ts";
import { checkpoint, fullStream } from "../../qemu/testing/synthetic_stream.ts";
import type { TapEvent } from "../events/tap_events.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { ScriptedTaps } from "../testing/scripted_taps.ts";
import { Loopback } from "../testing/loopback.ts";
import { MEMORY_STORE } from "../pages/page_store.ts";
import { Replica } from "./replica.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";

const DISK: TapEvent = { kind: "disk", tap: "d", sizeBytes: 8192, mode: "replicated" };
const COPIED: TapEvent = { kind: "copied", tap: "d" };
const write = (offset: number, value: number): TapEvent => {
  return { kind: "write", tap: "d", offset, data: Uint8Array.of(value) };
};

function secondary(store = MEMORY_STORE) {
  const copy = new FakeDisk(8192);
  const taps = new SecondaryTaps(
    new Map([["d", { mode: "replicated", sizeBytes: 8192, copy }]]),
    new Set(),
  );
  return { copy, replica: new Replica(1e9, undefined, taps, store) };
}

Deno.test("a full disk at the secondary: no ACK, a reason, and the rest before anything else", async () => {
  const { copy, replica } = secondary();
  const taps = new ScriptedTaps();
  const first = await Loopback.open({ replica, taps });
  taps.next = [DISK, COPIED, write(0, 1)];
  first.feed(fullStream(1));
  assert.deepEqual(taps.released, [1]);

  copy.writesLeft = 1;
  taps.next = [write(0, 2), write(1, 3), write(0, 4)];
  assert.throws(() => first.feed(checkpoint(2)), /disk full/);
  assert.throws(() => first.answer(), (error) => {
    assert.ok(error instanceof WireError && error.fault === "storage", `${error}`);
    assert.match(error.message, /disk full/);
    return true;
  });
  assert.deepEqual(taps.released, [1], "what the secondary could not store is not let go");
  assert.equal(replica.committed, 2);
  assert.equal(replica.taps.pendingWrites, 2);

  // Still full: a sender that comes back is told so, and nothing is built on half a transaction.
  await assert.rejects(Loopback.open({ replica }), /disk full/);
  assert.equal(replica.taps.pendingWrites, 2);

  copy.writesLeft = Infinity;
  const second = await Loopback.open({ replica });
  assert.equal(second.secondary.storageFailed, false);
  assert.deepEqual([...copy.bytes.subarray(0, 2)], [4, 3]);
});

Deno.test("pending writes are finished before an activation, in order", async () => {
  const { copy, replica } = secondary();
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps });
  taps.next = [DISK, COPIED];
  link.feed(fullStream(1));
  copy.writesLeft = 0;
  taps.next = [write(0, 1), write(0, 2)];
  assert.throws(() => link.feed(checkpoint(2)), /disk full/);
  assert.throws(() => replica.taps.applyPending(), /disk full/);
  copy.writesLeft = Infinity;
  replica.taps.applyPending();
  assert.equal(copy.bytes[0], 2);
});

Deno.test("a VM is not handed over to where its disk is not whole", async () => {
  const { replica } = secondary();
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps, stream: "plain" });
  taps.next = [DISK, write(0, 1)];
  link.feed(fullStream(1));
  link.primary.endOfStream(0, link.now);
  assert.throws(() => link.pump(), /disk d: it does not fit the VM's state/);
  assert.throws(() => link.answer(), /refused .*not complete/);
  assert.ok(!link.primaryEvents.some(({ kind }) => kind === "handed-over"));
});

Deno.test("a replica is not said to be whole while a disk is being copied", async () => {
  let whole = 0;
  const { replica } = secondary({ ...MEMORY_STORE, end: () => whole++ });
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps });
  taps.next = [DISK, write(0, 1)];
  link.feed(fullStream(1));
  assert.equal(whole, 0);
  taps.next = [COPIED];
  link.feed(checkpoint(2));
  assert.equal(whole, 1);
});

Deno.test("storage that stalls at the secondary: acknowledged all the same, up to a limit", async () => {
  let whole = 0;
  const { copy, replica } = secondary({ ...MEMORY_STORE, end: () => whole++ });
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps });
  taps.next = [DISK, COPIED];
  link.feed(fullStream(1));
  link.answer();
  assert.deepEqual([taps.released, whole], [[1], 1]);
  copy.isStalled = true;
  taps.next = [write(0, 2)];
  link.feed(checkpoint(2));
  assert.deepEqual(taps.released, [1, 2]);
  assert.deepEqual([replica.taps.pendingWrites, whole], [1, 1], "this process's end would lose it");
  replica.taps.mostPendingBytes = replica.taps.pendingBytes;
  taps.next = [write(0, 3)];
  link.feed(checkpoint(3));
  assert.equal(replica.committed, 3);
  assert.deepEqual(taps.released, [1, 2], "memory is not without end");
  assert.ok(!link.secondary.mayRead);
  copy.step();
  link.secondary.tick(link.now);
  link.pump();
  link.answer();
  assert.deepEqual(taps.released, [1, 2, 3]);
  copy.drain();
  assert.deepEqual([copy.bytes[0], replica.taps.pendingWrites, whole], [3, 0, 2]);
});

Deno.test("a disk that refuses what is acknowledged already: the sender is told, and it is kept", async () => {
  const { copy, replica } = secondary();
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps });
  taps.next = [DISK, COPIED];
  link.feed(fullStream(1));
  copy.isStalled = true;
  copy.writesLeft = 1;
  taps.next = [write(0, 1), write(0, 2), write(1, 3)];
  link.feed(checkpoint(2));
  copy.step();
  copy.step();
  // One that is tried again before the rest has come back would come in front of it.
  replica.taps.applyPending();
  const refused: string[] = [];
  replica.taps.onRefused = (error) => refused.push(error.message);
  copy.step();
  assert.equal(refused.length, 1);
  assert.equal(replica.taps.pendingWrites, 2);
  copy.writesLeft = Infinity;
  copy.isStalled = false;
  replica.taps.applyPending();
  assert.deepEqual([...copy.bytes.subarray(0, 2)], [2, 3]);
  assert.equal(replica.taps.pendingWrites, 0);
});

Deno.test("a VM is handed over when the disks here have everything, and not before", async () => {
  const { copy, replica } = secondary();
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps, stream: "plain" });
  taps.next = [DISK, COPIED, write(0, 1)];
  copy.isStalled = true;
  link.feed(fullStream(1));
  link.end();
  link.answer();
  const isOver = () => link.secondaryEvents.some(({ kind }) => kind === "handover");
  link.secondary.tick(link.now);
  assert.ok(!isOver());
  copy.drain();
  link.secondary.tick(link.now);
  assert.ok(link.secondary.takeEvents().some(({ kind }) => kind === "handover"));
});

Deno.test("a VM is not given away while what is acknowledged is still on its way to a shared image", async () => {
  const { replica } = secondary();
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps, stream: "plain" });
  taps.next = [DISK, COPIED];
  taps.isReleasing = true;
  link.feed(fullStream(1));
  link.end();
  link.answer();
  link.tick();
  const isOver = () => link.secondaryEvents.some(({ kind }) => kind === "handover");
  assert.ok(!isOver());
  taps.isReleasing = false;
  link.tick();
  assert.ok(isOver());
});

for (const answer of ["EINVAL", "EIO", "ENOSPC", "EROFS"]) {
  Deno.test(`a copy that answers ${answer} keeps the VM from going on here, until it is mended`, async () => {
    const { copy, replica } = secondary();
    const taps = new ScriptedTaps();
    const link = await Loopback.open({ replica, taps });
    copy.isStalled = true;
    taps.next = [DISK, COPIED, write(0, 1)];
    link.feed(fullStream(1));
    taps.next = [write(0, 2), { kind: "zero", tap: "d", offset: 4096, lengthBytes: 4096 }];
    link.feed(checkpoint(2));
    copy.refusal = new TransportError("d", "write", answer, { party: "disk" });
    replica.taps.onRefused = () => {};
    copy.drain();
    copy.isStalled = false;
    // As often as somebody asks, the answer is the disk's, and nothing is given up for it.
    for (let asked = 0; asked < 3; asked++) {
      assert.equal(replica.taps.unfit, undefined);
      let failure: Error | undefined;
      replica.taps.finishPending((error) => failure = error);
      assert.equal(failure, copy.refusal);
      assert.equal(replica.taps.pendingWrites, 3);
      assert.equal(replica.committed, 2);
    }
    copy.refusal = undefined;
    let isDone = false;
    replica.taps.finishPending((error) => isDone = error === undefined);
    assert.ok(isDone);
    assert.deepEqual([copy.bytes[0], replica.taps.pendingWrites], [2, 0]);
  });
}
