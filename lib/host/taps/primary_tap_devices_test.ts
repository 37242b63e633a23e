import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { parseDiskTap } from "../disk/disk_tap_address.ts";
import { ImageFile } from "../image/image_file.ts";
import { BLOCK, NbdWriter } from "../disk/testing/nbd_writer.ts";
import { Reactor } from "../system/reactor.ts";
import { parseNetTap } from "../net/net_tap_address.ts";
import { PrimaryTapDevices } from "./primary_tap_devices.ts";
import { never } from "../system/never.ts";
import { until } from "../../lab/program/until.ts";

/** Runs `act` beside two shared disks, `a` and `b`, each with a client. */
async function withDisks(
  act: (taps: PrimaryTapDevices, writers: NbdWriter[], images: string[]) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-taps-" });
  const images = ["a", "b"].map((name) => `${folder}/${name}`);
  for (const image of images) await Deno.writeFile(image, new Uint8Array(2 ** 20));
  const disks = images.map((path) =>
    parseDiskTap(`${path.at(-1)}=${path},unix:${path}.nbd,mode=shared`)
  );
  const reactor = new Reactor();
  const taps = await PrimaryTapDevices.open({ nets: [], disks, diskSync: "full" }, reactor, never);
  const write = ImageFile.prototype.write;
  try {
    await reactor.during(
      (async () => {
        const writers: NbdWriter[] = [];
        for (const path of images) {
          writers.push(await NbdWriter.connect(`${path}.nbd`, path.at(-1)!));
        }
        await act(taps, writers, images);
        writers.forEach((writer) => writer.close());
      })(),
      never,
    );
  } finally {
    ImageFile.prototype.write = write;
    taps.close();
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** Makes one image refuse. @returns what ends that. */
function refuse(path: string): () => void {
  const write = ImageFile.prototype.write;
  ImageFile.prototype.write = function (this: ImageFile, data, offset, fua, done) {
    if (this.name === path) return done(new TransportError(path, "write", "no room"));
    write.call(this, data, offset, fua, done);
  };
  return () => ImageFile.prototype.write = write;
}

Deno.test("an image that refuses holds up no other, and nothing is called released before it takes all", () =>
  withDisks(async (taps, [a, b], images) => {
    const released: number[] = [];
    taps.onReleased = (transaction) => released.push(transaction);
    taps.begin(0);
    taps.closeEpoch(1);
    taps.release(1);
    assert.deepEqual(released, [1]);
    await Promise.all([a.write(2), b.write(2)]);
    await until(() => a.answered + b.answered === 4, "a held write is answered at once");
    taps.closeEpoch(2);
    const mend = refuse(images[0]);
    taps.release(2);
    assert.deepEqual(released, [1]);
    await until(
      () => Deno.readFileSync(images[1])[BLOCK] === 2 && taps.status.disks[1].waiting === 0,
      "the other image has its writes",
    );
    const [first, second] = taps.status.disks;
    assert.match(first.stuck!, /no room/);
    assert.deepEqual([first.unreleasedWrites, second.unreleasedWrites, second.stuck], [2, 0, null]);
    mend();
    await until(() => released.length > 1, "it is not tried again");
    assert.deepEqual(released, [1, 2]);
    assert.equal(Deno.readFileSync(images[0])[BLOCK], 2);
    const { trigger, commit, release } = taps.status.latency.disk;
    assert.deepEqual([trigger.count, commit.count, release.count], [1, 1, 1]);
    assert.ok(release.max >= 900, "it was let go when it was written, a second later");
  }));

Deno.test("what is held when the secondary is lost is in the images, in order, and what follows too", () =>
  withDisks(async (taps, [a], images) => {
    taps.begin(0);
    taps.closeEpoch(1);
    taps.release(1);
    await a.write(3);
    await until(() => a.answered === 3, "the first writes");
    taps.closeEpoch(2);
    await a.write(1);
    await until(() => a.answered === 4, "the second write");
    assert.equal(Deno.readFileSync(images[0])[0], 0);
    taps.passThrough();
    await until(() => taps.status.disks[0].waiting === 0, "the image has taken what was held");
    assert.deepEqual([0, 1, 2].map((i) => Deno.readFileSync(images[0])[i * BLOCK]), [1, 2, 3]);
    assert.deepEqual(taps.takeEvents(), [], "nothing of it is left for the next secondary");
    await a.write(5);
    await until(() => a.answered === 9, "later writes");
    assert.equal(Deno.readFileSync(images[0])[4 * BLOCK], 5);
  }));

Deno.test("a disk of which much waits asks for a synchronization, whatever else does not", () =>
  withDisks(async (taps, [a]) => {
    let full = 0;
    let held = 0;
    taps.onFull = () => full++;
    taps.onHeld = () => held++;
    taps.begin(0);
    taps.closeEpoch(1);
    await a.write(10);
    await until(() => a.answered === 10, "writes");
    assert.ok(held > 0 && full === 0);
    // 80 times the same 256 blocks: 80 MiB recorded, 1 MiB of it in the overlay.
    for (let i = 0; full === 0 && i < 80; i++) {
      await a.write(256);
      const wanted = 10 + 256 * (i + 1);
      await until(() => a.answered === wanted, "more writes");
    }
    assert.ok(full > 0);
    assert.ok(taps.status.disks[0].heldBytes > 32 * 2 ** 20);
  }));

Deno.test("a NIC whose OUT takes nothing does not keep what the others have let out from being called so", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-taps-" });
  const nets = ["a", "b"].map((name) =>
    parseNetTap(`${name}=unix:${folder}/${name}.in,unix:${folder}/${name}.out`)
  );
  const worlds = ["a", "b"].map((name) =>
    Deno.listen({ transport: "unix", path: `${folder}/${name}.out` })
  );
  const reactor = new Reactor();
  const taps = await PrimaryTapDevices.open({ nets, disks: [], diskSync: "full" }, reactor, never);
  try {
    const [a, b] = await Promise.all(worlds.map((world) => world.accept()));
    const released: number[] = [];
    taps.onReleased = (transaction) => released.push(transaction);
    taps.begin(0);
    let transaction = 0;
    const commit = () => {
      taps.closeEpoch(++transaction);
      taps.release(transaction);
    };
    commit();
    assert.deepEqual(released, [1]);
    worlds[1].close();
    b.close();
    await reactor.during(until(() => !taps.status.nets.b.outConnected, "OUT to be gone"), never);
    commit();
    assert.deepEqual(released, [1], "it may be back in a moment");
    await reactor.sleep(1100, never);
    commit();
    assert.deepEqual(released, [1, 3]);
    a.close();
  } finally {
    taps.close();
    worlds[0].close();
    reactor.close();
    await Deno.remove(folder, { recursive: true });
  }
});
