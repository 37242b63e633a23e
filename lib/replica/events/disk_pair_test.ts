/**
 * A protected disk at both ends, through writes, epochs, losses, full disks, storage that stalls and
 * sessions at random: whenever the secondary may be activated, its disk is that of the last committed transaction, byte
 * for byte.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { decodeDiskQuery, digestDisk } from "./disk_digest.ts";
import { DiskResync, RESYNC_CHUNK_BYTES } from "./disk_resync.ts";
import { PrimaryDiskTap } from "./primary_disk_tap.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { createPageDigest } from "../pages/page_digest.ts";
import { SecondaryTaps } from "./secondary_taps.ts";
import { type DiskMode, encodeTapEvent } from "./tap_events.ts";

const SIZE = 3 * RESYNC_CHUNK_BYTES + 4096 + 512;
const SEED = { seedLow: 5, seedHigh: 6 };
const digest = await createPageDigest(SEED.seedLow, SEED.seedHigh);

/** What travels to the secondary. */
type Frame =
  | { readonly kind: "events"; readonly payloads: readonly Uint8Array[] }
  | { readonly kind: "commit"; readonly transaction: number }
  | { readonly kind: "released"; readonly transaction: number }
  | { readonly kind: "query"; readonly payload: Uint8Array };

/** What travels back. */
type Answer =
  | { readonly kind: "ack"; readonly transaction: number }
  | { readonly kind: "digests"; readonly payload: Uint8Array; readonly last: boolean };

class Scene {
  readonly image: FakeDisk;
  readonly theirs: FakeDisk;
  readonly tap: PrimaryDiskTap;
  readonly resync: DiskResync;
  taps!: SecondaryTaps;
  /** What the guest would read, at each transaction's end. */
  readonly views = new Map<number, Uint8Array>();
  readonly guest: Uint8Array;
  committed = 0;
  #transaction = 0;
  #connected = false;
  #holding = false;
  #forth: Frame[] = [];
  #back: Answer[] = [];
  /** Counts sessions: what an earlier one was waiting for is no business of the next. */
  #session = 0;
  /** Answers to queries that wait for the secondary's disk, in order. */
  #answers: ReturnType<typeof digestDisk>[] = [];

  constructor(readonly mode: DiskMode, ours: Uint8Array, theirs: Uint8Array) {
    this.image = new FakeDisk(ours);
    this.theirs = new FakeDisk(theirs);
    this.guest = ours.slice();
    this.tap = new PrimaryDiskTap("d", mode, this.image);
    this.resync = new DiskResync(this.tap, this.image);
    this.newSecondary();
  }

  /** Another process at the secondary: what it had in memory is gone, its disk is not. */
  newSecondary(): void {
    this.lose();
    const copy = this.mode === "replicated" ? this.theirs : undefined;
    this.theirs.forgetCalls();
    this.taps = new SecondaryTaps(
      new Map([["d", { mode: this.mode, sizeBytes: this.theirs.sizeBytes, copy }]]),
      new Set(),
    );
    // A full disk: the session is over.
    this.taps.onRefused = () => this.lose();
    this.committed = 0;
  }

  connect(): void {
    if (this.#connected) return;
    this.theirs.writesLeft = Infinity;
    this.#connected = true;
    this.taps.sessionBegins();
    if (!this.#connected) return;
    this.#holding = false;
    this.#transaction = this.committed;
    this.tap.start();
    if (this.mode === "shared") return;
    this.resync.reset();
    this.resync.begin({ kind: "compare", ...SEED, digest });
  }

  /** The connection ends here, whatever is on its way. */
  lose(): void {
    if (!this.#connected) return;
    this.#connected = false;
    this.#session++;
    this.#forth = [];
    this.#back = [];
    this.#answers = [];
    this.taps.abort();
    // A full image: what it has refused stays readable.
    this.tap.passThrough(() => {});
  }

  write(offset: number, data: Uint8Array): void {
    this.tap.write(offset, data, (error) => {
      if (error === undefined) this.guest.set(data, offset);
      else this.#readBack(offset, data.length);
    });
  }

  zero(offset: number, lengthBytes: number): void {
    this.tap.zero(offset, lengthBytes, (error) => {
      if (error === undefined) this.guest.fill(0, offset, offset + lengthBytes);
      else this.#readBack(offset, lengthBytes);
    });
  }

  /** The guest was told that it failed: what is there is what it finds. */
  #readBack(offset: number, lengthBytes: number): void {
    const found = new Uint8Array(lengthBytes);
    this.tap.read(found, offset, () => this.guest.set(found, offset));
  }

  checkpoint(): void {
    if (!this.#connected) return;
    // QEMU has its answers before the VM stands still.
    this.image.drain();
    const transaction = ++this.#transaction;
    this.tap.closeEpoch(transaction);
    this.#sendEvents();
    if (!this.#holding) this.tap.hold();
    this.#holding = true;
    this.views.set(transaction, this.guest.slice());
    this.#forth.push({ kind: "commit", transaction });
  }

  /** The storage at one end stalls from here on, or not. */
  stall(whose: "image" | "theirs", isStalled: boolean): void {
    this[whose].isStalled = isStalled;
  }

  /** Stalled or not, it gets something done. */
  serve(whose: "image" | "theirs", count: number): void {
    for (let i = 0; i < count && this[whose].step(); i++);
  }

  /** One whole transaction, as far as the disks allow. */
  exchange(): void {
    this.compare();
    this.checkpoint();
    while (this.#forth.length + this.#back.length > 0) {
      this.deliver();
      this.hear();
    }
  }

  /** The secondary is lost, and there again. */
  reconnect(): void {
    this.lose();
    this.connect();
  }

  compare(): void {
    if (!this.#connected || this.mode === "shared") return;
    for (let hasAsked = true; hasAsked;) {
      hasAsked = false;
      this.resync.takeQuery((payload) => {
        this.#forth.push({ kind: "query", payload });
        hasAsked = true;
      });
    }
    this.resync.step(RESYNC_CHUNK_BYTES);
  }

  deliver(): void {
    const frame = this.#forth.shift();
    switch (frame?.kind) {
      case "events":
        return frame.payloads.forEach((payload) => this.taps.stage(payload, 0));
      case "released":
        return this.taps.released(frame.transaction);
      case "query": {
        const { query, copy } = this.taps.diskQuery(frame.payload, 0);
        assert.deepEqual(query, decodeDiskQuery(frame.payload, 0));
        this.#answers.push(digestDisk(copy, query, digest));
        if (this.#answers.length === 1) this.#answer();
        return;
      }
      case "commit":
        this.committed = frame.transaction;
        this.taps.commit(frame.transaction);
        if (this.#connected) this.#back.push({ kind: "ack", transaction: frame.transaction });
    }
  }

  /** Tells what the first question is about, as far as the secondary's disk answers. */
  #answer(): void {
    const answer = this.#answers[0];
    for (let next = answer?.next(); next !== undefined; next = answer.next()) {
      if (next.done) {
        this.#answers.shift();
        return this.#answer();
      }
      const { value } = next;
      if (typeof value !== "function") {
        if (value !== undefined) this.#back.push({ kind: "digests", ...value });
        continue;
      }
      let isHere = true;
      let isThere = false;
      value(() => {
        isThere = true;
        if (!isHere && this.#answers[0] === answer) this.#answer();
      });
      isHere = false;
      if (!isThere) return;
    }
  }

  hear(): void {
    const answer = this.#back.shift();
    if (answer?.kind === "digests") this.resync.receive(answer.payload, answer.last);
    else if (answer?.kind === "ack") {
      const session = this.#session;
      this.tap.release(answer.transaction, (error) => {
        // What fails is tried again with the next one; RELEASED does not go out before.
        if (error !== undefined || session !== this.#session) return;
        this.#forth.push({ kind: "released", transaction: answer.transaction });
      });
    }
  }

  assertReads(): void {
    if (this.image.waiting > 0) return;
    const { isStalled } = this.image;
    this.image.isStalled = false;
    const seen = new Uint8Array(SIZE);
    this.tap.read(seen, 0);
    this.image.isStalled = isStalled;
    assert.ok(Buffer.compare(seen, this.guest) === 0, "the guest reads what it wrote");
  }

  /** The primary dies. @returns whether the secondary could take over. */
  activate(): boolean {
    if (this.committed === 0 || this.taps.incomplete.length > 0) return false;
    // In shared mode a primary that went on alone is ahead of the replica: it must be dead for this.
    if (this.mode === "shared" && !this.#connected) return false;
    const disk = this.mode === "shared" ? this.image : this.theirs;
    disk.writesLeft = Infinity;
    this.taps.abort();
    // The dead host does nothing more; the disk here does all before the VM runs.
    this.image.forgetCalls();
    this.image.isStalled = this.theirs.isStalled = false;
    this.theirs.drain();
    this.taps.applyPending();
    for (const { event } of this.taps.unreleased) {
      if (event.kind === "write") disk.write(event.offset, event.data);
      else if (event.kind === "zero") disk.zero(event.offset, event.lengthBytes);
    }
    const view = this.views.get(this.committed)!;
    const at = disk.bytes.findIndex((byte, i) => byte !== view[i]);
    assert.equal(at, -1, `transaction ${this.committed}: the disks differ`);
    return true;
  }

  /** Lets all get through, until the disk is in step and committed. */
  settle(): void {
    this.image.writesLeft = this.theirs.writesLeft = Infinity;
    this.image.isStalled = this.theirs.isStalled = false;
    this.image.drain();
    this.theirs.drain();
    this.connect();
    for (let round = 0; round < 12; round++) this.exchange();
  }

  #sendEvents(): void {
    const payloads = this.tap.takeEvents().map((event) => {
      const pieces = encodeTapEvent(event);
      return new Uint8Array(Buffer.concat(pieces));
    });
    this.#forth.push({ kind: "events", payloads });
  }
}

const range = {
  offset: fc.oneof(
    { weight: 1, arbitrary: fc.nat(SIZE - 1) },
    { weight: 3, arbitrary: fc.constantFrom(0, 512, 4096, 5000) },
  ),
  lengthBytes: fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(1, 600, 4096, 5000) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: SIZE }) },
  ),
};
const constant = <T>(kind: T) => fc.record({ kind: fc.constant(kind) });
const action = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ kind: fc.constant("write" as const), ...range, value: fc.nat(255) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("zero" as const), ...range }) },
  { weight: 5, arbitrary: constant("checkpoint" as const) },
  { weight: 8, arbitrary: constant("compare" as const) },
  { weight: 16, arbitrary: constant("deliver" as const) },
  { weight: 12, arbitrary: constant("hear" as const) },
  { weight: 2, arbitrary: constant("connect" as const) },
  { weight: 1, arbitrary: constant("lose" as const) },
  { weight: 3, arbitrary: constant("reconnect" as const) },
  { weight: 4, arbitrary: constant("exchange" as const) },
  { weight: 1, arbitrary: constant("newSecondary" as const) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("full" as const),
      whose: fc.constantFrom("image" as const, "theirs" as const),
      writesLeft: fc.constantFrom(0, 0, 1, 2, Infinity),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("stall" as const),
      whose: fc.constantFrom("image" as const, "theirs" as const),
      isStalled: fc.boolean(),
    }),
  },
  {
    weight: 10,
    arbitrary: fc.record({
      kind: fc.constant("serve" as const),
      whose: fc.constantFrom("image" as const, "theirs" as const),
      count: fc.constantFrom(1, 2, 5, 100),
    }),
  },
);

function content(seed: number): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  if (seed > 0) { for (let at = 0; at < SIZE; at += 700) bytes.fill(at * seed, at, at + 500); }
  return bytes;
}

for (const mode of ["replicated", "shared"] as const) {
  Deno.test(`a ${mode} disk is at activation what the last committed transaction left, whatever happens`, () => {
    let activations = 0;
    fc.assert(
      fc.property(
        fc.array(action, { minLength: 5, maxLength: 120 }),
        fc.nat(3),
        fc.nat(3),
        fc.boolean(),
        (actions, ours, theirs, isSettled) => {
          const scene = new Scene(mode, content(ours), content(theirs));
          scene.connect();
          // Half of them with a disk that is in step to begin with: losses are more telling then.
          if (isSettled) scene.settle();
          for (const each of actions) {
            const { kind } = each;
            if (kind === "full") scene[each.whose].writesLeft = each.writesLeft;
            else if (kind === "stall") scene.stall(each.whose, each.isStalled);
            else if (kind === "serve") scene.serve(each.whose, each.count);
            else if (kind === "write" || kind === "zero") {
              const lengthBytes = Math.min(each.lengthBytes, SIZE - each.offset);
              if (kind === "zero") scene.zero(each.offset, lengthBytes);
              else scene.write(each.offset, new Uint8Array(lengthBytes).fill(each.value));
            } else scene[kind]();
            scene.assertReads();
          }
          if (scene.activate()) activations++;
          else {
            scene.settle();
            assert.ok(scene.activate(), "a secondary that is there can take over in the end");
          }
        },
      ),
      { numRuns: 300, seed: 20101 },
    );
    assert.ok(activations > 30, `${activations} of 300 could be activated as they were`);
  });
}
