/** An image on storage that stands still: a frozen file system, on which writes wait in the kernel. */
import assert from "node:assert/strict";
import { canFreeze, FrozenDisk, isHeld } from "../../lab/testing/frozen_disk.ts";
import type { Done } from "../../replica/events/done.ts";
import { ImageFile } from "./image_file.ts";
import { Reactor } from "../system/reactor.ts";
import { never } from "../system/never.ts";

const BLOCK = 4096;

interface Scene {
  readonly disk: FrozenDisk;
  readonly path: string;
  readonly image: ImageFile;
  readonly reactor: Reactor;
}

function stallTest(name: string, act: (scene: Scene) => Promise<void>): void {
  Deno.test(name, async () => {
    if (!await canFreeze()) return console.error("SKIP: needs root, loop devices and ext4");
    await using disk = await FrozenDisk.make();
    const path = await disk.image("image", 1 << 20);
    const reactor = new Reactor();
    const image = ImageFile.open(path, reactor);
    try {
      await act({ disk, path, image, reactor });
    } finally {
      await disk.thaw();
      image.close();
      reactor.close();
    }
  });
}

/** What has ended, in order. */
class Ends {
  readonly names: string[] = [];
  of(name: string): Done {
    return (error) => this.names.push(error === undefined ? name : `${name}: ${error.message}`);
  }
}

const block = (value: number) => new Uint8Array(BLOCK).fill(value);

/** Whether this process has a file open. */
function hasOpen(path: string): boolean {
  return [...Deno.readDirSync("/proc/self/fd")].some(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${name}`) === path;
    } catch {
      return false;
    }
  });
}

/** Waits until the image's thread stands still in a write: a moment in which it waits otherwise is short. */
async function untilHeld(reactor: Reactor): Promise<void> {
  const end = performance.now() + 20_000;
  for (let seen = 0; seen < 3; seen = isHeld() ? seen + 1 : 0) {
    assert.ok(performance.now() < end, "nobody waits for the storage");
    await reactor.sleep(5, never);
  }
}

stallTest(
  "while storage stands still the loop goes on, and then all is done in order",
  async (scene) => {
    const { disk, path, image, reactor } = scene;
    const ends = new Ends();
    image.write(block(1), 0, false, ends.of("first"));
    await reactor.run(() => ends.names.length === 1, never);
    await disk.freeze();
    image.write(block(2), 0, false, ends.of("write"));
    image.write(block(3), BLOCK, true, ends.of("fua"));
    const seen = block(0);
    image.read(seen, 0, ends.of("read behind"));
    image.flush(ends.of("flush"));
    // The loop's timers fire, many times, and what is in memory elsewhere in the image is read.
    let beats = 0;
    const stop = reactor.every(10, () => beats++);
    await reactor.run(() => beats >= 50, never);
    stop();
    const elsewhere = block(9);
    image.read(elsewhere, 8 * BLOCK, ends.of("read elsewhere"));
    await reactor.run(() => ends.names.length === 2, never);
    assert.deepEqual(ends.names, ["first", "read elsewhere"]);
    assert.equal(image.waiting, 4);
    assert.ok(await disk.thaw(), "the loop has waited for the storage");
    await reactor.run(() => ends.names.length === 6, never);
    assert.deepEqual(ends.names.slice(2), ["write", "fua", "read behind", "flush"]);
    assert.equal(seen[0], 2, "a read sees the write in front of it");
    assert.deepEqual([...Deno.readFileSync(path).filter((_, i) => i % BLOCK === 0)].slice(0, 3), [
      ...[2, 3, 0],
    ]);
  },
);

stallTest(
  "an image that is closed while storage stands still: no more is written than was begun",
  async (scene) => {
    const { disk, path, image, reactor } = scene;
    const ends = new Ends();
    image.write(block(1), 0, false, ends.of("first"));
    await reactor.run(() => ends.names.length === 1, never);
    await disk.freeze();
    image.write(block(2), 0, false, ends.of("begun"));
    image.write(block(3), BLOCK, false, ends.of("behind"));
    await untilHeld(reactor);
    image.close();
    assert.ok(hasOpen(path), "the thread is still in the system");
    assert.ok(await disk.thaw(), "closing has waited for the storage");
    const end = performance.now() + 20_000;
    while (hasOpen(path)) {
      assert.ok(performance.now() < end, "the thread does not let go of the image");
      await reactor.sleep(10, never);
    }
    const found = Deno.readFileSync(path);
    assert.deepEqual([found[0], found[BLOCK]], [2, 0], "what waited is given up");
    assert.deepEqual(ends.names, ["first"]);
  },
);

stallTest("one image's storage keeps no other waiting", async ({ disk, image, reactor }) => {
  const path = await Deno.makeTempFile({ prefix: "kemari-image-" });
  await Deno.truncate(path, 1 << 20);
  const other = ImageFile.open(path, reactor);
  try {
    await disk.freeze();
    const ends = new Ends();
    image.write(block(1), 0, false, ends.of("stalled"));
    for (let i = 0; i < 200; i++) other.write(block(i), i * BLOCK, i % 10 === 0, ends.of(`${i}`));
    await reactor.run(() => ends.names.length === 200, never);
    assert.ok(!ends.names.includes("stalled"));
    assert.ok(await disk.thaw());
    await reactor.run(() => ends.names.length === 201, never);
  } finally {
    other.close();
    await Deno.remove(path);
  }
});

stallTest(
  "writes that are given up while storage stands still are not made, and reads go on",
  async (scene) => {
    const { disk, path, image, reactor } = scene;
    const ends = new Ends();
    image.write(block(1), 0, false, ends.of("first"));
    await reactor.run(() => ends.names.length === 1, never);
    await disk.freeze();
    image.write(block(2), 0, false, ends.of("begun"));
    for (let i = 1; i < 200; i++) image.write(block(3), i * BLOCK, false, ends.of(`${i}`));
    image.read(block(0), 0, ends.of("read"));
    await untilHeld(reactor);
    image.giveUpWrites();
    image.write(block(4), 2 * BLOCK, false, ends.of("later"));
    assert.ok(await disk.thaw(), "somebody has waited for the storage");
    await reactor.run(() => ends.names.length === 203, never);
    assert.deepEqual([ends.names[1], ends.names[201], ends.names[202]], ["begun", "read", "later"]);
    assert.ok(ends.names.slice(2, 201).every((name) => /given up/.test(name)), ends.names[2]);
    const found = Deno.readFileSync(path);
    assert.deepEqual([0, 1, 2, 3].map((i) => found[i * BLOCK]), [2, 0, 4, 0]);
  },
);

stallTest(
  "at the end an image is waited for, so long and no longer",
  async ({ disk, path, image, reactor }) => {
    const ends = new Ends();
    for (let i = 0; i < 200; i++) image.write(block(5), i * BLOCK, false, ends.of("written"));
    image.finish(performance.now() + 60_000);
    assert.equal(ends.names.length, 200);
    assert.equal(Deno.readFileSync(path)[199 * BLOCK], 5);
    await disk.freeze();
    image.write(block(6), 0, false, ends.of("stalled"));
    await untilHeld(reactor);
    image.finish(performance.now() + 100);
    assert.equal(image.waiting, 1);
    assert.ok(await disk.thaw(), "the end has waited for the storage");
  },
);

Deno.test("a whole disk is zeroed where there are no holes, by writing: the loop goes on meanwhile", async () => {
  if (Deno.uid() !== 0) return console.error("SKIP: needs root");
  const sizeBytes = 48 * 2 ** 20;
  const folder = await Deno.makeTempDir({ prefix: "kemari-ramfs-" });
  // It has no fallocate(2).
  const mount = new Deno.Command("mount", { args: ["-t", "ramfs", "none", folder] });
  assert.ok((await mount.output()).success);
  await using mounted = new AsyncDisposableStack();
  mounted.defer(async () => {
    await new Deno.Command("umount", { args: [folder] }).output();
    await Deno.remove(folder);
  });
  const path = `${folder}/image`;
  await Deno.writeFile(path, new Uint8Array(sizeBytes));
  const reactor = new Reactor();
  const image = ImageFile.open(path, reactor);
  try {
    const ends = new Ends();
    image.write(block(7), sizeBytes - BLOCK, false, ends.of("write"));
    const options = { fua: false, mayUnmap: true, fast: true };
    image.zero(0, sizeBytes, options, ends.of("quickly"));
    await reactor.run(() => ends.names.length === 2, never);
    assert.match(ends.names[1], /cannot be zeroed quickly/);
    let beats = 0;
    const stop = reactor.every(1, () => beats++);
    image.zero(0, sizeBytes, { ...options, fast: false }, ends.of("zero"));
    await reactor.run(() => ends.names.length === 3, never);
    stop();
    assert.equal(ends.names[2], "zero");
    assert.ok(beats >= 3, `the loop came round ${beats} times`);
    assert.ok(Deno.readFileSync(path).every((byte) => byte === 0));
    // One that is closed in the middle of it ends at the next piece.
    image.zero(0, sizeBytes, { ...options, fast: false }, ends.of("given up"));
    await reactor.sleep(1, never);
  } finally {
    image.close();
    reactor.close();
  }
  assert.ok(!hasOpen(path), "the thread has ended");
});
