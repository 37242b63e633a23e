/** A protected disk as its NBD client sees it: slowed down, refused, but never left waiting. */
import assert from "node:assert/strict";
import type { Done } from "../../replica/events/done.ts";
import { parseDiskTap } from "./disk_tap_address.ts";
import { ERRNO } from "../system/linux.ts";
import { ImageFile } from "../image/image_file.ts";
import { NbdServer } from "./nbd_server.ts";
import { BLOCK, NbdWriter } from "./testing/nbd_writer.ts";
import { PrimaryDisk } from "./primary_disk.ts";
import type { Reactor } from "../system/reactor.ts";
import { HastyReactor } from "../system/testing/hasty_reactor.ts";
import { TransportError } from "../../errors.ts";
import { never } from "../system/never.ts";
import { until } from "../../lab/program/until.ts";

const LIMIT = 64 * 1024;

interface Lab {
  readonly disk: PrimaryDisk;
  readonly reactor: Reactor;
  readonly path: string;
  /** Sends writes of 4 KiB, all at once. @returns how many of them were answered, any time. */
  write(count: number): Promise<() => number>;
}

async function withDisk(
  mode: "replicated" | "shared",
  act: (lab: Lab) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-disk-" });
  const path = `${folder}/image`;
  await Deno.writeFile(path, new Uint8Array(4 * 2 ** 20));
  const reactor = new HastyReactor();
  const address = parseDiskTap(`disk=${path},unix:${folder}/nbd,mode=${mode}`);
  const disk = new PrimaryDisk(address, ImageFile.open(path, reactor), reactor, LIMIT);
  const exports = [{ name: "disk", backend: disk.backend }];
  disk.serve(await NbdServer.listen({ address: address.socket, exports }, reactor, never));
  const writers: NbdWriter[] = [];
  const write = async (count: number) => {
    const writer = await NbdWriter.connect(`${folder}/nbd`, "disk");
    writers.push(writer);
    await writer.write(count);
    return () => writer.answered;
  };
  try {
    disk.begin(0);
    disk.tap.hold();
    if (mode === "replicated") disk.resync.begin({ kind: "none" });
    disk.tap.takeEvents();
    await reactor.during(act({ disk, reactor, path, write }), never);
  } finally {
    for (const writer of writers) writer.close();
    disk.close(performance.now() + 5000);
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** A disk's call, as a promise. The reactor has to run. */
function ended(start: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) =>
    start((error) => error === undefined ? resolve() : reject(error))
  );
}

for (const mode of ["replicated", "shared"] as const) {
  Deno.test(`${mode}: above the limit writes are slowed down, and answered without any commit`, () =>
    withDisk(mode, async ({ disk, write }) => {
      const answered = await write(400);
      await until(() => answered() === 400, `${answered()} of 400 writes were answered`);
      const { throttled, throttledMs, heldBytes, limitBytes } = disk.status(true);
      assert.ok(heldBytes > limitBytes && throttled > 0 && throttledMs > 0);
    }));

  Deno.test(`${mode}: a drain gets all its answers, however much is held`, () =>
    withDisk(mode, async ({ disk, write }) => {
      const before = await write(40);
      await until(() => disk.status(true).throttled > 0, "nothing waits");
      disk.stopping();
      await until(() => before() === 40, "the drain waits");
      const { throttled } = disk.status(true);
      const more = await write(200);
      await until(() => more() === 200, "a write waits while the VM is being stopped");
      assert.equal(disk.status(true).throttled, throttled);
      disk.stopped();
    }));
}

Deno.test("a shared image that refuses a released write: kept, told, tried again, and then let go", () =>
  withDisk("shared", async ({ disk, reactor, path, write }) => {
    const answered = await write(2);
    await until(() => answered() === 2, "a held write is answered at once");
    disk.tap.closeEpoch(1);
    const { image } = disk;
    const take = image.write.bind(image);
    image.write = (_data, _offset, _fua, done) =>
      done(new TransportError(path, "write", "no room", { cause: ERRNO.ENOSPC }));
    let released = 0;
    disk.onReleased = () => released++;
    disk.release(1);
    assert.equal(disk.left, 0, "nothing that the image does not have counts as let go");
    assert.match(disk.status(true).stuck!, /no room/);
    assert.equal(disk.status(true).unreleasedWrites, 2);
    image.write = take;
    await reactor.during(until(() => released === 1, "it is not tried again"), never);
    assert.deepEqual([disk.left, disk.status(true).stuck], [1, null]);
    assert.equal(Deno.readFileSync(path)[BLOCK], 2);
  }));

Deno.test("nothing is said to be flushed that a shared image refuses, once there is no secondary", () =>
  withDisk("shared", async ({ disk, path, write }) => {
    const answered = await write(1);
    await until(() => answered() === 1, "a held write is answered at once");
    await ended((done) => disk.backend.flush(done));
    const { image } = disk;
    const take = image.write.bind(image);
    image.write = (_data, _offset, _fua, done) =>
      done(new TransportError(path, "write", "no room", { cause: ERRNO.ENOSPC }));
    disk.passThrough();
    await assert.rejects(ended((done) => disk.backend.flush(done)), /no room/);
    const byte = new Uint8Array(1);
    await assert.rejects(ended((done) => disk.backend.write(byte, 0, false, done)), /no room/);
    image.write = take;
    await ended((done) => disk.backend.flush(done));
    assert.equal(Deno.readFileSync(path)[0], 1);
  }));

Deno.test("an image that shrank: whoever reads there is told, and a resync does not pass it by", async () => {
  let isOver = false;
  let isPassedBy: boolean | undefined;
  const resyncing = withDisk("replicated", async ({ disk, path, reactor }) => {
    await Deno.truncate(path, 2 ** 20);
    const bytes = new Uint8Array(BLOCK);
    await assert.rejects(ended((done) => disk.backend.read(bytes, 2 ** 21, done)), /image ends at/);
    await ended((done) => disk.tap.read(bytes, 0, done));
    disk.resync.reset();
    disk.resync.begin({ kind: "copy" });
    isPassedBy = false;
    try {
      while (!isOver && !disk.resync.done) {
        await reactor.turn(never);
        disk.resync.step(2 ** 20);
      }
    } finally {
      isPassedBy = disk.resync.done;
    }
  });
  // Whichever turn of the loop takes the image's answer throws it.
  await assert.rejects(resyncing, /the image ends at/);
  isOver = true;
  assert.equal(isPassedBy, false);
});
