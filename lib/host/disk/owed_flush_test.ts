/** What the guest was told is durable, while only the secondary's word stood behind that. */
import assert from "node:assert/strict";
import type { Done } from "../../replica/events/done.ts";
import type { DiskMode } from "../../replica/events/tap_events.ts";
import { TransportError } from "../../errors.ts";
import { ImageFile } from "../image/image_file.ts";
import { HastyReactor } from "../system/testing/hasty_reactor.ts";
import { parseDiskTap } from "./disk_tap_address.ts";
import { PrimaryDisk } from "./primary_disk.ts";
import { never } from "../system/never.ts";

const BYTES = new Uint8Array(4096).fill(7);
const ZEROS = { mayUnmap: true, fast: false };

interface Lab {
  readonly disk: PrimaryDisk;
  /** What the image was asked for, in order. */
  readonly asked: string[];
  /** Flushes that the storage has not answered, where it answers none by itself. */
  readonly unanswered: Done[];
  /** Waits until the image has answered all. */
  settled(): Promise<void>;
}

async function withDisk(
  { mode = "replicated", stalls = false }: { mode?: DiskMode; stalls?: boolean },
  act: (lab: Lab) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-owed-" });
  const path = `${folder}/image`;
  await Deno.writeFile(path, new Uint8Array(2 ** 20));
  const reactor = new HastyReactor();
  const image = ImageFile.open(path, reactor);
  const asked: string[] = [];
  const unanswered: Done[] = [];
  const { write, zero, flush } = image;
  image.write = (...args) => (asked.push("write"), write.apply(image, args));
  image.zero = (...args) => (asked.push("zero"), zero.apply(image, args));
  image.flush = (done) => {
    asked.push("flush");
    if (stalls) unanswered.push(done);
    else flush.call(image, done);
  };
  const address = parseDiskTap(`vda=${path},unix:${folder}/nbd,mode=${mode}`);
  const disk = new PrimaryDisk(address, image, reactor);
  const settled = async () => {
    await reactor.run(() => image.waiting === 0, never);
  };
  try {
    await reactor.during(act({ disk, asked, unanswered, settled }), never);
  } finally {
    disk.close(performance.now() + 1500);
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
}

function ended(start: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) =>
    start((error) => error === undefined ? resolve() : reject(error))
  );
}

/** A guest that is told on credit that something is durable. */
async function credit({ disk }: Pick<Lab, "disk">, how: "FUA" | "flush"): Promise<void> {
  await ended((done) => disk.backend.write(BYTES, 0, how === "FUA", done));
  if (how === "flush") await ended((done) => disk.backend.flush(done));
}

for (const mode of ["replicated", "shared"] as const) {
  for (const how of ["FUA", "flush"] as const) {
    Deno.test(`${mode}: what a ${how} was told on credit is made good when protection ends`, () =>
      withDisk({ mode }, async ({ disk, asked, settled }) => {
        disk.begin(0);
        disk.tap.hold();
        await credit({ disk }, how);
        assert.ok(!asked.includes("flush"), "a checkpoint drains the disk: it is not to wait");
        disk.passThrough();
        await settled();
        assert.deepEqual(asked, ["write", "flush"], "behind what was held");
        disk.passThrough();
        await settled();
        assert.deepEqual(asked, ["write", "flush"], "and once");
      }));
  }

  Deno.test(`${mode}: what was told on credit is made good where the end comes first`, async () => {
    let asked: string[] = [];
    await withDisk({ mode }, async (lab) => {
      asked = lab.asked;
      lab.disk.begin(0);
      lab.disk.tap.hold();
      await credit(lab, "flush");
    });
    assert.equal(asked.at(-1), "flush");
  });

  Deno.test(`${mode}: before there is a state that the guest's words wait for, a flush is a flush`, () =>
    withDisk({ mode }, async ({ disk, asked }) => {
      const flushes = () => asked.filter((each) => each === "flush").length;
      await credit({ disk }, "FUA");
      assert.equal(flushes(), 1, "without a secondary");
      disk.begin(0);
      await credit({ disk }, "flush");
      assert.equal(flushes(), 2, "while the first state travels");
      await ended((done) => disk.backend.zero(0, 512, { ...ZEROS, fua: true }, done));
      await ended((done) => disk.backend.trim(0, 512, true, done));
      assert.equal(flushes(), 4, "zeros and discards have FUA too");
      disk.tap.hold();
      await credit({ disk }, "FUA");
      assert.equal(flushes(), 4);
    }));
}

Deno.test("a disk whose VM is another's by now is not flushed", async () => {
  let asked: string[] = [];
  await withDisk({}, async (lab) => {
    asked = lab.asked;
    lab.disk.begin(0);
    lab.disk.tap.hold();
    await credit(lab, "flush");
    lab.disk.giveUp();
  });
  assert.ok(!asked.includes("flush"));
});

Deno.test("what could not be made good fails the guest's next flushes, protected again or not", () =>
  withDisk({ stalls: true }, async ({ disk, unanswered }) => {
    disk.begin(0);
    disk.tap.hold();
    await credit({ disk }, "flush");
    disk.passThrough();
    assert.equal(unanswered.length, 1);
    unanswered[0](new TransportError("image", "write", "cannot flush: I/O error"));
    await assert.rejects(ended((done) => disk.backend.flush(done)), /I\/O error/);
    disk.begin(0);
    disk.tap.hold();
    await assert.rejects(ended((done) => disk.backend.flush(done)), /I\/O error/);
    await assert.rejects(credit({ disk }, "FUA"), /I\/O error/);
  }));

Deno.test("the credit of a new session is not made good by the flush of the one before", () =>
  withDisk({ stalls: true }, async ({ disk, unanswered }) => {
    disk.begin(0);
    disk.tap.hold();
    await credit({ disk }, "flush");
    disk.passThrough();
    disk.begin(0);
    disk.tap.hold();
    await credit({ disk }, "flush");
    unanswered[0]();
    assert.ok(disk.backend.owesFlush);
    disk.passThrough();
    assert.equal(unanswered.length, 2);
    unanswered[1]();
    assert.ok(!disk.backend.owesFlush);
  }));

Deno.test("a shared image has what the secondary forgets on stable storage first", () =>
  withDisk({ mode: "shared", stalls: true }, async ({ disk, asked, unanswered, settled }) => {
    const told: number[] = [];
    disk.onReleased = () => told.push(disk.left);
    disk.begin(0);
    disk.tap.hold();
    disk.release(1);
    assert.deepEqual(told, [1], "nothing was written: nothing to wait for");
    for (const transaction of [2, 3, 4]) {
      await credit({ disk }, "flush");
      disk.tap.closeEpoch(transaction);
      disk.release(transaction);
      await settled();
    }
    assert.deepEqual(asked, ["write", "flush", "write", "write"]);
    assert.deepEqual(told, [1]);
    assert.ok(disk.isReleasing, "a VM is not given away before");
    unanswered[0]();
    assert.deepEqual(told, [1, 2]);
    assert.equal(unanswered.length, 2, "one for all that was let go meanwhile");
    unanswered[1]();
    assert.deepEqual(told, [1, 2, 4]);
    assert.ok(!disk.isReleasing);
    // Where that fails the guest hears of it, and the secondary need not keep it for ever.
    await credit({ disk }, "flush");
    disk.tap.closeEpoch(5);
    disk.release(5);
    await settled();
    unanswered[2](new TransportError("image", "write", "cannot flush: I/O error"));
    assert.deepEqual(told, [1, 2, 4, 5]);
    await assert.rejects(ended((done) => disk.backend.flush(done)), /I\/O error/);
  }));

Deno.test("what is let go while an earlier transaction is written has a flush of its own", () =>
  withDisk({ mode: "shared", stalls: true }, async ({ disk, asked, unanswered, settled }) => {
    const told: number[] = [];
    disk.onReleased = () => told.push(disk.left);
    disk.begin(0);
    disk.tap.hold();
    for (const transaction of [1, 2]) {
      await credit({ disk }, "flush");
      disk.tap.closeEpoch(transaction);
    }
    disk.release(1);
    disk.release(2);
    await settled();
    assert.deepEqual(asked, ["write", "flush", "write"]);
    unanswered[0]();
    assert.deepEqual(told, [1]);
    assert.deepEqual(asked, ["write", "flush", "write", "flush"]);
    unanswered[1]();
    assert.deepEqual(told, [1, 2]);
  }));

Deno.test("a flush of an earlier session lets nothing go in the next one", () =>
  withDisk({ mode: "shared", stalls: true }, async ({ disk, unanswered, settled }) => {
    const told: number[] = [];
    disk.begin(0);
    disk.tap.hold();
    const letGo = async (transaction: number) => {
      await ended((done) => disk.backend.write(BYTES, 0, false, done));
      disk.tap.closeEpoch(transaction);
      disk.release(transaction);
      await settled();
    };
    await letGo(7);
    disk.passThrough();
    disk.begin(0);
    disk.tap.hold();
    disk.onReleased = () => told.push(disk.left);
    await letGo(1);
    assert.equal(unanswered.length, 1);
    unanswered[0]();
    assert.deepEqual(told, []);
    unanswered[1]();
    assert.deepEqual(told, [1]);
  }));
