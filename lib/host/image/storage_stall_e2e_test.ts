/** A protected VM whose disk's storage stands still, at the primary and at the secondary. */
import assert from "node:assert/strict";
import { sideBySide } from "../../lab/testing/side_by_side.ts";
import { BarePair } from "../../lab/testing/bare_pair.ts";
import { canFreeze, FrozenDisk } from "../../lab/testing/frozen_disk.ts";
import type { TappedStatus } from "../../lab/program/ask_end.ts";
import type { SenderStatus } from "../../control/sender_status.ts";
import { NbdWriter } from "../disk/testing/nbd_writer.ts";
import { QmpClient } from "../vm/qmp_client.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

const SIZE = 4 * 2 ** 20;
/** Several times as long as the secondary waits for a sign of life. */
const STALL_MS = 5000;
const GRACE = ["--heartbeat", "200ms", "--grace", "2s"];
const IN_THE_END = ["--on-loss", "activate", "--fence", "none", "--replay", "disk"];

/** A bare guest with two disks: `slow` is on storage that can stand still at either end. */
class StallScene implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  pair!: BarePair;
  qmp!: QmpClient;
  frozen!: Record<"primary" | "secondary", FrozenDisk>;
  images!: Record<"primary" | "secondary", { slow: string; fast: string }>;

  static async make(): Promise<StallScene> {
    const scene = new StallScene();
    try {
      await scene.#start();
      return scene;
    } catch (error) {
      await scene[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #start(): Promise<void> {
    const machine = { machine: "pc", accelerator: "tcg", pages: 4 } as const;
    this.frozen = {
      primary: this.#stack.use(await FrozenDisk.make()),
      secondary: this.#stack.use(await FrozenDisk.make()),
    };
    const pair = this.pair = this.#stack.use(await BarePair.boot("11.1", machine));
    const imagesOf = async (end: "primary" | "secondary") => {
      const fast = `${pair.folder}/${end}.img`;
      await Deno.writeFile(fast, new Uint8Array(SIZE));
      return { slow: await this.frozen[end].image("slow.img", SIZE), fast };
    };
    this.images = { primary: await imagesOf("primary"), secondary: await imagesOf("secondary") };
  }

  /** What a kemari is told of the disks. */
  disks(end: "primary" | "secondary"): string[] {
    return (["slow", "fast"] as const).flatMap((name) => [
      "--disk",
      `${name}=${this.images[end][name]},unix:${this.socket(end, name)}`,
    ]);
  }

  socket(end: "primary" | "secondary", name: string): string {
    return `${this.pair.folder}/${end}-${name}.nbd`;
  }

  /** Protects the VM, whose QEMU has the disks then, until they are in step. */
  async protect() {
    const { pair } = this;
    const recv = await pair.recv(...GRACE, ...IN_THE_END, ...this.disks("secondary"));
    const secondary = await pair.secondary();
    const protect = pair.protect(
      ...[...GRACE, "--sync-interval", "50", "--progress", "never"],
      ...this.disks("primary"),
    );
    await pair.syncs(3);
    this.qmp = this.#stack.use(await QmpClient.connect(pair.primary.spareQmpPath));
    for (const name of ["slow", "fast"]) {
      await this.qmp.execute("blockdev-add", {
        "driver": "nbd",
        "node-name": name,
        "server": { type: "unix", path: this.socket("primary", name) },
        "export": name,
      });
    }
    await this.status(({ state, taps }) =>
      state === "synchronizing" && taps.disks.every(({ copied }) => copied === 1)
    );
    await pair.syncs((await pair.syncs(0)).syncs + 3);
    return { recv, secondary, protect };
  }

  /** Waits for the sender to report what is wanted. */
  async status(accept: (status: TappedStatus) => boolean = () => true): Promise<TappedStatus> {
    const taps = (status: SenderStatus) => status as TappedStatus;
    return taps(await this.pair.senderStatus((status) => accept(taps(status))));
  }

  /** Whether a write to the slow disk is on its way at the primary. */
  isStalled({ taps }: TappedStatus): boolean {
    return taps.disks.some(({ name, waiting }) => name === "slow" && waiting > 0);
  }

  /**
   * Has QEMU itself write a block, which it waits for before it stops the VM for a checkpoint; and
   * answers nothing meanwhile.
   */
  async write(name: string, value: number): Promise<void> {
    await this.qmp.execute("human-monitor-command", {
      "command-line": `qemu-io ${name} "aio_write -P ${value} 0 4k"`,
    }, { timeoutMs: 60_000 });
  }

  firstByte(end: "primary" | "secondary", name: "slow" | "fast"): number {
    using file = Deno.openSync(this.images[end][name]);
    const bytes = new Uint8Array(1);
    file.readSync(bytes);
    return bytes[0];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

async function stalled(act: (scene: StallScene) => Promise<void>): Promise<void> {
  if (!await canFreeze()) return console.error("SKIP: needs root, loop devices and ext4");
  await using scene = await StallScene.make();
  await act(scene);
}

async function answersAt(path: string): Promise<boolean> {
  try {
    (await Deno.connect({ transport: "unix", path })).close();
    return true;
  } catch {
    return false;
  }
}

sideBySide("e2e: storage that stands still", (scene) => {
  scene(
    "the primary's storage stands still for longer than the grace: nobody takes over",
    () =>
      stalled(async (scene) => {
        const { pair, frozen } = scene;
        await scene.protect();
        await frozen.primary.freeze();
        const writing = scene.write("slow", 7);
        // kemari answers, while QEMU waits for its disk.
        await scene.status(scene.isStalled);
        const until_ = performance.now() + STALL_MS;
        // The other disk is served.
        const client = await NbdWriter.connect(scene.socket("primary", "fast"), "fast");
        let written = 0;
        while (performance.now() < until_) {
          await client.write(8);
          written += 8;
          await until(() => client.answered === written, "the other disk to answer");
          await delay(100);
        }
        client.close();
        const during = await scene.status();
        assert.ok(scene.isStalled(during), "the write is still on its way");
        assert.equal(during.state, "synchronizing");
        const there = await pair.receiverStatus();
        assert.equal(there.state, "receiving", "the secondary still hears the primary");
        assert.ok(
          there.longestSilenceMs! < 2000,
          `nothing was heard for ${there.longestSilenceMs} ms`,
        );
        assert.ok(await frozen.primary.thaw(), "somebody has waited for the storage");
        await writing;
        await pair.syncs(during.syncs + 10);
        await pair.assertRunning(pair.primary);
        assert.equal(
          (await pair.receiverStatus()).lastLoss,
          null,
          "it was one session all the time",
        );
        assert.equal(scene.firstByte("primary", "slow"), 7);
        assert.equal(scene.firstByte("secondary", "slow"), 7);
      }),
  );

  scene(
    "the secondary's storage stands still: the primary's VM goes on, checkpoint by checkpoint",
    () =>
      stalled(async (scene) => {
        const { pair, frozen } = scene;
        await scene.protect();
        await frozen.secondary.freeze();
        await scene.write("slow", 9);
        await pair.receiverStatus(({ pendingWrites }) => pendingWrites > 0);
        const before = (await pair.syncs(0)).syncs;
        const until_ = performance.now() + STALL_MS;
        for (let value = 10; performance.now() < until_; value++) {
          await scene.write("fast", value);
          await pair.assertRunning(pair.primary);
        }
        const { syncs } = await pair.syncs(before + 20);
        const there = await pair.receiverStatus();
        assert.ok(there.pendingWrites > 0, "the secondary's disk still has to take it");
        assert.ok(
          there.longestSilenceMs! < 2000,
          `nothing was heard for ${there.longestSilenceMs} ms`,
        );
        assert.ok(await frozen.secondary.thaw(), "somebody has waited for the storage");
        await pair.receiverStatus(({ pendingWrites }) => pendingWrites === 0);
        await pair.syncs(syncs + 10);
        assert.equal(
          (await pair.receiverStatus()).lastLoss,
          null,
          "it was one session all the time",
        );
        assert.equal(scene.firstByte("secondary", "slow"), 9);
      }),
  );

  scene(
    "a takeover waits for storage that stands still: no VM runs before its disk has everything",
    () =>
      stalled(async (scene) => {
        const { pair, frozen } = scene;
        const { secondary, protect } = await scene.protect();
        await frozen.secondary.freeze();
        await scene.write("slow", 11);
        await pair.receiverStatus(({ pendingWrites }) => pendingWrites > 0);
        await pair.syncs((await pair.syncs(0)).syncs + 5);
        protect.signal("SIGKILL");
        await pair.primary.kill9();
        await pair.receiverStatus(({ state }) => state === "activating");
        await delay(2000);
        const waits = await pair.receiverStatus();
        assert.ok(waits.pendingWrites > 0);
        assert.deepEqual(pair.counts(secondary), [], "a VM runs on a disk that lacks its writes");
        assert.ok(await frozen.secondary.thaw(), "somebody has waited for the storage");
        await pair.assertTakenOver(secondary, 100);
        assert.equal(scene.firstByte("secondary", "slow"), 11);
      }),
  );

  scene(
    "kemari is interrupted while its storage stands still: it ends, and lets go of everything else",
    () =>
      stalled(async (scene) => {
        const { pair, frozen } = scene;
        const { protect } = await scene.protect();
        await frozen.primary.freeze();
        const client = await NbdWriter.connect(scene.socket("primary", "slow"), "slow");
        await client.write(4);
        await scene.status(scene.isStalled);
        protect.signal("SIGINT");
        // Where QEMU waits for its disk, whoever tells it in the end is the guardian.
        await protect.waitFor(/interrupted by SIGINT/, 20_000);
        const fast = scene.socket("primary", "fast");
        await until(async () => !await answersAt(fast), "its sockets to go");
        client.close();
        assert.ok(await frozen.primary.thaw(), "somebody has waited for the storage");
        assert.equal((await protect.ended(20_000)).code, 130);
        await protect.waitFor(/the VM is running/, 20_000);
        await pair.assertRunning(pair.primary);
      }),
  );
});
