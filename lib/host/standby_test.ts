/** The standby's life, with a stand-in for QEMU; `standby_e2e_test.ts` has the real one. */
import assert from "node:assert/strict";
import { QemuError } from "../errors.ts";
import { BLOCKS, fullStream } from "../qemu/synthetic_stream.ts";
import { Replica } from "../replica/replica.ts";
import { ReplicaTaps } from "../replica/replica_taps.ts";
import { RamDir } from "./ram_dir.ts";
import { RanAndEnded, Standby } from "./standby.ts";
import { quoteWord } from "./standby_command.ts";

const FAKE = new URL("../../fixtures/fake_qemu.ts", import.meta.url).pathname;
const BLOCK_LIST = BLOCKS.map(([name, bytes]) => `${name}=${bytes}`).join(" ");

interface Scene {
  readonly replica: Replica;
  readonly standby: Standby;
  readonly folder: string;
  /** Has the replica's state rehearsed, and the standby started for it. */
  check(): Promise<void>;
  /** Waits for the standby to be in a state. */
  until(state: string): Promise<void>;
}

/** A replica in files, and a standby for it that has been told of them. */
async function withStandby(options: readonly string[], body: (scene: Scene) => Promise<void>) {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-standby-test-", dir: "/dev/shm" });
  const words = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", FAKE];
  const command = [...words, "--blocks", BLOCK_LIST, ...options].map(quoteWord).join(" ");
  const dir = RamDir.open(`${folder}/ram`);
  const standby = new Standby(command, dir.makeSocketFolder());
  dir.onImage = (files) => standby.image(files);
  const replica = new Replica(1e8, undefined, new ReplicaTaps(new Map(), new Set()), dir);
  const full = fullStream(1);
  try {
    replica.begin({ full: true, based: false });
    replica.receive(full, 0, full.length);
    replica.commit(1);
    await body({
      replica,
      standby,
      folder,
      async check() {
        await standby.check(replica, dir.files);
        standby.settle(true);
      },
      async until(state) {
        for (const begun = performance.now(); standby.status.state !== state;) {
          assert.ok(performance.now() - begun < 20_000, JSON.stringify(standby.status));
          await new Promise((resolve) => setTimeout(resolve, 5));
        }
      },
    });
  } finally {
    await standby.close();
    dir.close();
    Deno.removeSync(folder, { recursive: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}

Deno.test("a standby is rehearsed, waits, loads and runs; nothing is left when it is ended", () =>
  withStandby([], async ({ replica, standby, check, until }) => {
    await check();
    await until("ready");
    const { pid } = standby.status;
    assert.ok(isAlive(pid!));
    const vm = await standby.activate(replica, true);
    assert.ok(vm!.runningAt > vm!.loadedAt);
    assert.equal(standby.status.state, "running");
    assert.ok(isAlive(pid!), "it is its owner's to end");
    vm!.kill();
    await vm!.exitCode;
    // The shell around it may have ended a moment earlier.
    for (const begun = performance.now(); isAlive(pid!);) {
      assert.ok(performance.now() - begun < 10_000, "it ends");
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }));

Deno.test("a VM that was paused is loaded and not set running", () =>
  withStandby(["--fault", "no-run"], async ({ replica, standby, check }) => {
    await check();
    const vm = await standby.activate(replica, false);
    assert.equal(vm!.runningAt, vm!.loadedAt);
    vm!.kill();
    await vm!.exitCode;
  }));

Deno.test("an activation waits for a standby that is just starting", () =>
  withStandby([], async ({ replica, standby, check }) => {
    await check();
    const vm = await standby.activate(replica, true);
    assert.ok(vm !== undefined);
    vm.kill();
    await vm.exitCode;
  }));

Deno.test("a standby that dies is started again", () =>
  withStandby([], async ({ standby, check, until }) => {
    await check();
    for (let round = 1; round <= 2; round++) {
      await until("ready");
      const { pid } = standby.status;
      Deno.kill(pid!, "SIGKILL");
      await until("starting");
      await until("ready");
      assert.notEqual(standby.status.pid, pid);
      assert.equal(standby.status.restarts, round);
      assert.match(standby.status.reason!, /it has ended/);
    }
  }));

for (const [fault, reason] of [["no-load", /load of migration failed/], ["killed", /./]] as const) {
  Deno.test(`a standby that ends while it loads (${fault}) is dead for certain, and activation is cold`, () =>
    withStandby(["--fault", fault === "killed" ? "slow-load" : fault], async (scene) => {
      const { replica, standby, check, until } = scene;
      await check();
      await until("ready");
      const pid = standby.status.pid!;
      const activation = standby.activate(replica, true);
      if (fault === "killed") {
        await until("loading");
        await new Promise((resolve) => setTimeout(resolve, 100));
        Deno.kill(pid, "SIGKILL");
      }
      assert.equal(await activation, undefined);
      assert.ok(!isAlive(pid), "no second VM may run beside it");
      assert.equal(standby.status.state, "cold");
      assert.match(standby.status.reason!, reason);
      // And it stays so: the replica is whole, and the cold start may be tried again.
      assert.equal(await standby.activate(replica, true), undefined);
      assert.ok([...replica.compose()].length > 3);
    }));
}

Deno.test("a VM that ended after it was told to run has no second chance", () =>
  withStandby(["--fault", "no-run"], async ({ replica, standby, check, until }) => {
    await check();
    await until("ready");
    const pid = standby.status.pid!;
    await assert.rejects(standby.activate(replica, true), RanAndEnded);
    assert.ok(!isAlive(pid));
  }));

Deno.test("another machine, other blocks, and a QEMU that does not start are told at the check", async () => {
  const cases: readonly [readonly string[], RegExp][] = [
    [["--machine-type", "other"], /its machine type is other, and the primary's is /],
    [["--blocks", "pc.ram=8192"], /the primary has RAM rom, which belongs to a device/],
    [["--blocks", `${BLOCK_LIST} vga.vram=4096`], /it has RAM vga.vram, which the primary has not/],
    [["--fault", "no-start"], /it does not start: fake-qemu: cannot start/],
  ];
  for (const [options, reason] of cases) {
    await withStandby([], async ({ replica, folder }) => {
      using dir = RamDir.open(`${folder}/other`);
      const words = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", FAKE, ...options];
      if (!options.includes("--blocks")) words.push("--blocks", BLOCK_LIST);
      const other = new Standby(words.map(quoteWord).join(" "), dir.makeSocketFolder());
      dir.onImage = (files) => other.image(files);
      const copy = new Replica(1e8, undefined, new ReplicaTaps(new Map(), new Set()), dir);
      const full = fullStream(1);
      copy.begin({ full: true, based: false });
      copy.receive(full, 0, full.length);
      copy.commit(1);
      assert.ok(replica.machine !== undefined);
      try {
        await assert.rejects(other.check(copy, dir.files), (error) => {
          assert.ok(error instanceof QemuError, `${error}`);
          assert.match(error.message, reason);
          return true;
        });
        assert.equal(other.status.state, "none");
        assert.equal(other.rehearsed(dir.files), undefined);
      } finally {
        await other.close();
      }
    });
  }
});

Deno.test("a standby ends with its kemari, unless it has the VM", () =>
  withStandby([], async ({ folder }) => {
    // A kemari of its own, which is killed.
    const script = `${folder}/owner.ts`;
    await Deno.writeTextFile(
      script,
      `import { StandbyProcess } from ${
        JSON.stringify(new URL("./standby_process.ts", import.meta.url).href)
      };
const process = StandbyProcess.start("sleep 600", "/nowhere", () => {});
await new Promise((resolve) => setTimeout(resolve, 200));
if (Deno.args[0] === "keep") await process.keep();
console.log(process.pid);
await new Promise((resolve) => setTimeout(resolve, 600_000));`,
    );
    for (const keep of [false, true]) {
      const owner = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", "--no-check", "--no-lock", script, keep ? "keep" : "end"],
        stdout: "piped",
      }).spawn();
      const { value } = await owner.stdout.getReader().read();
      const pid = Number(new TextDecoder().decode(value));
      owner.kill("SIGKILL");
      await owner.status;
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.equal(isAlive(pid), keep);
      if (keep) Deno.kill(-pid, "SIGKILL");
    }
  }));
