import assert from "node:assert/strict";
import { ImageFile } from "./image_file.ts";
import { Reactor } from "../system/reactor.ts";
import { never } from "../system/never.ts";

const LIMIT = () => AbortSignal.timeout(20_000);

/** An image whose thread runs, on a reactor of its own. */
async function withImage(act: (image: ImageFile, reactor: Reactor) => Promise<void>) {
  const path = await Deno.makeTempFile({ prefix: "kemari-queue-" });
  await Deno.truncate(path, 1 << 20);
  const reactor = new Reactor();
  const image = ImageFile.open(path, reactor);
  try {
    let isThere = false;
    image.flush(() => isThere = true);
    await reactor.run(() => isThere, LIMIT());
    await act(image, reactor);
  } finally {
    image.close();
    reactor.close();
    await Deno.remove(path);
  }
}

/** Keeps this thread busy until the image's own has answered what it was asked. */
function let100msPass(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
}

Deno.test("whoever throws at an answer does not keep the others from theirs", async () => {
  await withImage(async (image, reactor) => {
    let isWritten = false;
    image.status(0, 4096, 1, () => {
      throw new Error("the peer has gone");
    });
    image.write(new Uint8Array(4096), 0, false, () => isWritten = true);
    let100msPass();
    await assert.rejects(reactor.run(() => false, LIMIT()), /the peer has gone/);
    assert.ok(isWritten);
  });
});

Deno.test("an answer comes behind the call, unless the image may be waited for", async () => {
  await withImage(async (image, reactor) => {
    for (let i = 0; i < 20; i++) {
      let isDone = false;
      image.write(new Uint8Array(512), 0, false, () => isDone = true);
      assert.ok(!isDone);
      await reactor.run(() => isDone, LIMIT());
    }
  });
});

Deno.test("an image that may be waited for answers before the call returns", async () => {
  await withImage(async (image, reactor) => {
    // As long as that, so that a busy machine gives the image's thread a processor.
    image.waitShortly(10_000);
    for (let i = 0; i < 5; i++) {
      let isDone = false;
      image.write(new Uint8Array(512), 0, false, () => isDone = true);
      assert.ok(isDone);
      await reactor.sleep(0, never);
    }
  });
});

Deno.test("of the requests of one turn only the first is waited for on the spot", async () => {
  await withImage(async (image, reactor) => {
    image.waitShortly(10_000);
    for (let turn = 0; turn < 50; turn++) {
      let left = 4;
      for (let i = 0; i < 4; i++) {
        const before = left;
        image.write(new Uint8Array(512), 512 * i, false, () => left--);
        assert.equal(left < before, i === 0, "the first is waited for, and no other");
      }
      await reactor.run(() => left === 0, LIMIT());
      await reactor.sleep(0, never);
    }
  });
});
