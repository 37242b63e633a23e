/** Both ends' taps on real images and a real socket; QEMU's streams are made up. */
import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { TransportError, WireError } from "../../errors.ts";
import { RESYNC_CHUNK_BYTES } from "../../replica/events/disk_resync.ts";
import { parseDiskTap } from "../disk/disk_tap_address.ts";
import { cString, libc } from "../system/libc.ts";
import { Stage, tinyStream } from "./testing/link_stage.ts";
import { never } from "../system/never.ts";
import { socketConnection } from "./peer_connection.ts";
import { SecondaryTapDevices } from "../taps/secondary_tap_devices.ts";
import { SenderLink } from "./sender_link.ts";
import { PrimaryTapDevices } from "../taps/primary_tap_devices.ts";

const SIZE = 40 * RESYNC_CHUNK_BYTES + 512;

/** A primary and a secondary with a disk each, and sessions between them. */
class Scene implements AsyncDisposable {
  #round = 0;

  private constructor(
    readonly stage: Stage,
    readonly taps: PrimaryTapDevices,
    readonly replica: SecondaryTapDevices,
    readonly images: Readonly<Record<"ours" | "theirs", string>>,
  ) {}

  /** @param theirs The secondary's image; a hole where it is not given. @param at Its path. */
  static async make(ours: Uint8Array, theirs?: Uint8Array, at?: string): Promise<Scene> {
    const folder = Deno.makeTempDirSync({ prefix: "kemari-resync-" });
    const images = { ours: `${folder}/a.img`, theirs: at ?? `${folder}/b.img` };
    Deno.writeFileSync(images.ours, ours);
    Deno.writeFileSync(images.theirs, theirs ?? new Uint8Array(0));
    Deno.truncateSync(images.theirs, ours.length);
    const disk = (path: string) => parseDiskTap(`d=${path},unix:${folder}/${path.at(-5)}.nbd`);
    // The receiver's taps must be there before the receiver, and run on its reactor.
    let replica!: SecondaryTapDevices;
    const stage = await Stage.open({}, async (reactor) => {
      replica = await SecondaryTapDevices.open([], [disk(images.theirs)], reactor, never);
      return replica.secondaryTaps;
    });
    const settings = { nets: [], disks: [disk(images.ours)], diskSync: "full" as const };
    const taps = await PrimaryTapDevices.open(settings, stage.reactor, never);
    return new Scene(stage, taps, replica, images);
  }

  get disk() {
    return this.taps.status.disks[0];
  }

  async connect(): Promise<SenderLink> {
    const peer = socketConnection(await this.stage.connect(), "the socket");
    const link = new SenderLink(this.stage.reactor, peer, {
      commit: "async",
      stream: "snapshots",
      maxInFlightBytes: 2 ** 26,
      heartbeatMs: 200,
      graceMs: 2000,
      software: "test",
      taps: this.taps,
    });
    await this.stage.reactor.run(() => link.ready, never);
    return link;
  }

  /** One snapshot, with whatever the taps have recorded by then. */
  async snapshot(link: SenderLink): Promise<void> {
    const file = `${this.stage.folder}/stream`;
    Deno.writeFileSync(file, tinyStream(++this.#round));
    const input = libc().open(cString(file), 0, 0);
    try {
      link.attach({ input, output: -1, name: "QEMU" });
      await this.stage.reactor.run(() => link.qemuEnded && link.inFlight === 0, never);
    } finally {
      link.detach();
      libc().close(input);
    }
  }

  async inStep(link: SenderLink): Promise<void> {
    while (!this.taps.copied) {
      await this.snapshot(link);
      await this.stage.reactor.sleep(20, never);
    }
    await this.snapshot(link);
    // A transaction is acknowledged from memory; the copy's own thread writes it when it can.
    const written = () => this.replica.secondaryTaps.pendingWrites === 0;
    await this.stage.reactor.run(written, AbortSignal.timeout(30_000));
    assert.deepEqual(this.replica.secondaryTaps.incomplete, []);
  }

  lose(link: SenderLink): Promise<void> {
    link.close();
    this.taps.passThrough();
    return this.stage.quiet();
  }

  /** The disks themselves, compared. */
  assertEqual(): void {
    const [ours, theirs] = Object.values(this.images).map((path) => Deno.readFileSync(path));
    assert.ok(Buffer.compare(ours, theirs) === 0, "the images differ");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.taps.close();
    this.replica.close();
    await this.stage[Symbol.asyncDispose]();
    await Deno.remove(this.images.ours.replace(/\/[^/]*$/, ""), { recursive: true });
  }
}

function noise(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  for (let at = 0; at < SIZE; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536));
  return bytes;
}

Deno.test("an empty copy gets all, one that was interrupted the rest, one that is equal nothing", async () => {
  await using scene = await Scene.make(noise(), new Uint8Array(SIZE));
  const first = await scene.connect();
  await scene.snapshot(first);
  assert.throws(() => scene.stage.receiver.failover(), /disk d: it does not fit/);
  // One transaction has brought the beginning; the rest dies with the session.
  await scene.stage.reactor.run(() => scene.disk.resync.sentBytes > 0, never);
  await scene.snapshot(first);
  await scene.lose(first);

  const second = await scene.connect();
  await scene.inStep(second);
  scene.assertEqual();
  const { doneBytes, sentBytes, equalBytes } = scene.disk.resync;
  assert.equal(doneBytes, SIZE);
  assert.equal(sentBytes + equalBytes, SIZE);
  assert.ok(equalBytes > 0, "what had arrived is not sent again");
  await scene.lose(second);

  const third = await scene.connect();
  await scene.inStep(third);
  assert.equal(scene.disk.resync.sentBytes, 0);
  await scene.lose(third);
});

Deno.test("what was written while there was no secondary is all that is sent to one that comes back", async () => {
  await using scene = await Scene.make(noise(), new Uint8Array(SIZE));
  const first = await scene.connect();
  await scene.inStep(first);
  await scene.lose(first);
  using file = Deno.openSync(scene.images.ours, { write: true });
  file.seekSync(3 * RESYNC_CHUNK_BYTES + 5, Deno.SeekMode.Start);
  file.writeSync(Uint8Array.of(1, 2, 3, 4));
  const second = await scene.connect();
  await scene.inStep(second);
  scene.assertEqual();
  assert.equal(scene.disk.resync.sentBytes, RESYNC_CHUNK_BYTES);
  await scene.lose(second);
});

Deno.test("a receiver that cannot tell digests is sent everything", async () => {
  await using scene = await Scene.make(noise(), new Uint8Array(SIZE));
  scene.taps.begin(0);
  let sent = 0;
  while (!scene.taps.copied) {
    await scene.stage.reactor.sleep(10, never);
    for (const pieces of scene.taps.takeEvents()) sent += pieces[1]?.length ?? 0;
  }
  assert.equal(sent, SIZE);
  scene.taps.passThrough();
});

Deno.test({
  name: "a full disk at the secondary: refused and told, and in step when it has room (needs root)",
  ignore: Deno.uid() !== 0,
  fn: async () => {
    const folder = await Deno.makeTempDir({ prefix: "kemari-full-" });
    const mount = async (...args: string[]) => {
      const { success, stderr } = await new Deno.Command("mount", { args }).output();
      assert.ok(success, new TextDecoder().decode(stderr));
    };
    await mount("-t", "tmpfs", "-o", "size=6m", "none", folder);
    try {
      const theirs = `${folder}/b.img`;
      await using scene = await Scene.make(noise(), undefined, theirs);
      const first = await scene.connect();
      // Its storage answers when it likes: transactions go on until it has refused.
      const goOn = async () => {
        for (;;) {
          await scene.snapshot(first);
          await scene.stage.reactor.sleep(20, never);
        }
      };
      await assert.rejects(
        goOn(),
        (error) => error instanceof WireError && error.fault === "storage",
      );
      await scene.lose(first);
      assert.equal(
        scene.stage.receiver.state,
        "waiting",
        "the replica is kept, and nobody activated",
      );
      assert.ok(scene.replica.secondaryTaps.pendingWrites > 0);
      await assert.rejects(
        scene.replica.activate({ net: true, disk: true, input: true }, never),
        (error) => error instanceof TransportError && error.party === "disk",
      );
      assert.ok(scene.replica.secondaryTaps.pendingWrites > 0, "nothing of it is lost by that");

      await mount("-o", "remount,size=64m", folder);
      const second = await scene.connect();
      await scene.inStep(second);
      scene.assertEqual();
      assert.ok(scene.disk.resync.equalBytes > 0);
      await scene.lose(second);
    } finally {
      await new Deno.Command("umount", { args: [folder] }).output();
      await Deno.remove(folder);
    }
  },
});
