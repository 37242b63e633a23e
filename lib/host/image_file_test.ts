import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { TransportError } from "../errors.ts";
import { ImageFile } from "./image_file.ts";
import { ERRNO } from "./libc.ts";

const MIB = 1 << 20;

/** Runs with an image of a size, all hole, and removes it. */
function withImage(sizeBytes: number, act: (image: ImageFile, path: string) => void): void {
  const path = Deno.makeTempFileSync({ prefix: "kemari-image-" });
  try {
    Deno.truncateSync(path, sizeBytes);
    using image = ImageFile.open(path);
    act(image, path);
  } finally {
    Deno.removeSync(path);
  }
}

function read(image: ImageFile, offset: number, lengthBytes: number): Uint8Array {
  const into = new Uint8Array(lengthBytes);
  image.read(into, offset);
  return into;
}

function assertFails(act: () => unknown, code: number | undefined, message: RegExp): void {
  assert.throws(act, (error) => {
    assert.ok(error instanceof TransportError, `${error}`);
    assert.match(error.message, message);
    if (code !== undefined) assert.equal(error.cause, code);
    return true;
  });
}

const pattern = (lengthBytes: number) => new Uint8Array(lengthBytes).map((_, i) => 1 + i % 251);

Deno.test("what is written at any offset is read again, and is in the file", () => {
  withImage(3 * MIB + 7, (image, path) => {
    assert.equal(image.sizeBytes, 3 * MIB + 7);
    const data = pattern(MIB + 3);
    image.write(data, 511, false);
    image.write(data.subarray(0, 5), 3 * MIB + 2, true);
    image.flush();
    assert.deepEqual(read(image, 511, data.length), data);
    const file = Deno.readFileSync(path);
    assert.equal(file.length, 3 * MIB + 7);
    assert.deepEqual(file.subarray(3 * MIB + 2), data.subarray(0, 5));
    assert.ok(file.subarray(0, 511).every((byte) => byte === 0));
  });
});

Deno.test("zeroes are zeroes, with a hole, without one, in odd places and across many blocks", () => {
  withImage(4 * MIB, (image) => {
    for (const mayUnmap of [true, false]) {
      for (const [offset, length] of [[0, MIB], [4097, 5], [1000, 3 * MIB], [MIB - 1, 4096]]) {
        image.write(pattern(4 * MIB), 0, false);
        image.zero(offset, length, { mayUnmap, fua: true, fast: false });
        const expected = pattern(4 * MIB).fill(0, offset, offset + length);
        assert.equal(Buffer.compare(read(image, 0, 4 * MIB), expected), 0);
      }
    }
  });
});

Deno.test("status tells data from holes, and stops after as many as were asked for", () => {
  withImage(4 * MIB, (image) => {
    image.write(pattern(65536), MIB, false);
    const hole = (lengthBytes: number) => ({ lengthBytes, flags: 3 });
    const data = (lengthBytes: number) => ({ lengthBytes, flags: 0 });
    const all = image.status(0, 4 * MIB, 100);
    // A file system that knows no holes may call everything data.
    if (all.length === 1) return console.error("SKIP: this file system has no holes");
    assert.deepEqual(all, [hole(MIB), data(65536), hole(3 * MIB - 65536)]);
    assert.deepEqual(image.status(0, 4 * MIB, 2), [hole(MIB), data(65536)]);
    assert.deepEqual(image.status(MIB + 5, 10, 9), [data(10)]);
    assert.deepEqual(image.status(4 * MIB - 1, 1, 9), [hole(1)]);
    image.trim(MIB, 65536, true);
    assert.deepEqual(image.status(0, 4 * MIB, 9), [hole(4 * MIB)]);
  });
});

Deno.test("an image that shrank is noticed by a read, a status and a flush", () => {
  withImage(2 * MIB, (image, path) => {
    image.write(pattern(2 * MIB), 0, false);
    Deno.truncateSync(path, MIB);
    assert.equal(read(image, 0, MIB).length, MIB);
    assertFails(() => read(image, MIB - 1, 2), ERRNO.EIO, /ends at 1048576 and had 2097152/);
    assertFails(() => image.status(MIB + 1, 1, 9), ERRNO.EIO, /ends at 1048576/);
    assertFails(() => image.flush(), ERRNO.EIO, /ends at 1048576/);
  });
});

Deno.test("what is no image is refused with its path", () => {
  const folder = Deno.makeTempDirSync();
  assertFails(() => ImageFile.open(`${folder}/none`), undefined, /none: cannot open the image/);
  assertFails(() => ImageFile.open(folder), undefined, /a file or a block device/);
  assertFails(() => ImageFile.open("/dev/null"), undefined, /a file or a block device/);
  Deno.removeSync(folder);
});

Deno.test("a read-only image is read, and refuses to be written", () => {
  withImage(MIB, (_, path) => {
    using image = ImageFile.open(path, { readOnly: true });
    assert.ok(image.readOnly);
    assert.equal(read(image, 0, 10).length, 10);
    assertFails(() => image.write(pattern(1), 0, false), 9, /cannot write at 0/);
  });
});
