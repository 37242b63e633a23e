import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { TransportError } from "../../errors.ts";
import type { Extent } from "../../nbd/reply_writer.ts";
import type { Done } from "../../replica/events/done.ts";
import type { ZeroFlags } from "./block_backend.ts";
import { ImageFile } from "./image_file.ts";
import { ERRNO } from "../system/linux.ts";
import { Reactor } from "../system/reactor.ts";
import { never } from "../system/never.ts";

const MIB = 1 << 20;

/** An image whose calls are promises. */
class Scene implements Disposable {
  constructor(
    readonly image: ImageFile,
    readonly reactor: Reactor,
    readonly path: string,
  ) {}

  /** Waits, on the loop, for a call's end. */
  async ended(start: (done: Done) => void): Promise<void> {
    let isDone = false;
    let failure: Error | undefined;
    start((error) => {
      isDone = true;
      failure = error;
    });
    await this.reactor.run(() => isDone, never);
    if (failure !== undefined) throw failure;
  }

  async read(offset: number, lengthBytes: number): Promise<Uint8Array> {
    const into = new Uint8Array(lengthBytes);
    await this.ended((done) => this.image.read(into, offset, done));
    return into;
  }
  write(data: Uint8Array, offset: number, fua = false): Promise<void> {
    return this.ended((done) => this.image.write(data, offset, fua, done));
  }
  zero(offset: number, lengthBytes: number, options: ZeroFlags): Promise<void> {
    return this.ended((done) => this.image.zero(offset, lengthBytes, options, done));
  }
  flush(): Promise<void> {
    return this.ended((done) => this.image.flush(done));
  }
  async status(offset: number, lengthBytes: number, most: number): Promise<readonly Extent[]> {
    let found: readonly Extent[] = [];
    await this.ended((done) =>
      this.image.status(offset, lengthBytes, most, (extents, error) => {
        found = extents;
        done(error);
      })
    );
    return found;
  }

  [Symbol.dispose](): void {
    this.image.close();
    this.reactor.close();
  }
}

/** Runs with an image of a size, all hole, and removes it. */
async function withImage(
  sizeBytes: number,
  act: (scene: Scene) => Promise<void>,
  readOnly = false,
): Promise<void> {
  const path = Deno.makeTempFileSync({ prefix: "kemari-image-" });
  try {
    Deno.truncateSync(path, sizeBytes);
    const reactor = new Reactor();
    using scene = new Scene(ImageFile.open(path, reactor, { readOnly }), reactor, path);
    await act(scene);
  } finally {
    Deno.removeSync(path);
  }
}

async function assertFails(
  act: () => unknown,
  code: number | undefined,
  message: RegExp,
): Promise<void> {
  await assert.rejects(async () => await act(), (error) => {
    assert.ok(error instanceof TransportError, `${error}`);
    assert.match(error.message, message);
    if (code !== undefined) assert.equal(error.cause, code);
    return true;
  });
}

const pattern = (lengthBytes: number) => new Uint8Array(lengthBytes).map((_, i) => 1 + i % 251);

Deno.test("what is written at any offset is read again, and is in the file", () =>
  withImage(3 * MIB + 7, async (scene) => {
    const { image, path } = scene;
    assert.equal(image.sizeBytes, 3 * MIB + 7);
    const data = pattern(MIB + 3);
    await scene.write(data, 511);
    await scene.write(data.subarray(0, 5), 3 * MIB + 2, true);
    await scene.flush();
    assert.deepEqual(await scene.read(511, data.length), data);
    const file = Deno.readFileSync(path);
    assert.equal(file.length, 3 * MIB + 7);
    assert.deepEqual(file.subarray(3 * MIB + 2), data.subarray(0, 5));
    assert.ok(file.subarray(0, 511).every((byte) => byte === 0));
  }));

Deno.test("zeroes are zeroes, with a hole, without one, in odd places and across many blocks", () =>
  withImage(4 * MIB, async (scene) => {
    for (const mayUnmap of [true, false]) {
      for (const [offset, length] of [[0, MIB], [4097, 5], [1000, 3 * MIB], [MIB - 1, 4096]]) {
        await scene.write(pattern(4 * MIB), 0);
        await scene.zero(offset, length, { mayUnmap, fua: true, fast: false });
        const expected = pattern(4 * MIB).fill(0, offset, offset + length);
        assert.equal(Buffer.compare(await scene.read(0, 4 * MIB), expected), 0);
      }
    }
  }));

Deno.test("status tells data from holes, and stops after as many as were asked for", () =>
  withImage(4 * MIB, async (scene) => {
    await scene.write(pattern(65536), MIB);
    const hole = (lengthBytes: number) => ({ lengthBytes, flags: 3 });
    const data = (lengthBytes: number) => ({ lengthBytes, flags: 0 });
    const all = await scene.status(0, 4 * MIB, 100);
    // A file system that knows no holes may call everything data.
    if (all.length === 1) return console.error("SKIP: this file system has no holes");
    assert.deepEqual(all, [hole(MIB), data(65536), hole(3 * MIB - 65536)]);
    assert.deepEqual(await scene.status(0, 4 * MIB, 2), [hole(MIB), data(65536)]);
    assert.deepEqual(await scene.status(MIB + 5, 10, 9), [data(10)]);
    assert.deepEqual(await scene.status(4 * MIB - 1, 1, 9), [hole(1)]);
    await scene.ended((done) => scene.image.trim(MIB, 65536, true, done));
    assert.deepEqual(await scene.status(0, 4 * MIB, 9), [hole(4 * MIB)]);
  }));

Deno.test("an image that shrank is noticed by a read, a status and a flush", () =>
  withImage(2 * MIB, async (scene) => {
    await scene.write(pattern(2 * MIB), 0);
    Deno.truncateSync(scene.path, MIB);
    assert.equal((await scene.read(0, MIB)).length, MIB);
    await assertFails(() => scene.read(MIB - 1, 2), ERRNO.EIO, /ends at 1048576 and had 2097152/);
    await assertFails(() => scene.status(MIB + 1, 1, 9), ERRNO.EIO, /ends at 1048576/);
    await assertFails(() => scene.flush(), ERRNO.EIO, /ends at 1048576/);
  }));

Deno.test("what is no image is refused with its path", async () => {
  const folder = Deno.makeTempDirSync();
  const reactor = new Reactor();
  const open = (path: string) => ImageFile.open(path, reactor);
  await assertFails(() => open(`${folder}/none`), undefined, /none: cannot open the image/);
  await assertFails(() => open(folder), undefined, /a file or a block device/);
  await assertFails(() => open("/dev/null"), undefined, /a file or a block device/);
  reactor.close();
  Deno.removeSync(folder);
});

Deno.test("a read-only image is read, and refuses to be written", () =>
  withImage(MIB, async (scene) => {
    assert.ok(scene.image.readOnly);
    assert.equal((await scene.read(0, 10)).length, 10);
    await assertFails(() => scene.write(pattern(1), 0), 9, /cannot write at 0/);
  }, true));
