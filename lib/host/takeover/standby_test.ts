/** The standby's life, with a stand-in for QEMU; `standby_e2e_test.ts` has the real one. */
import assert from "node:assert/strict";
import { QemuError } from "../../errors.ts";
import { BLOCKS, fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { Replica } from "../../replica/secondary/replica.ts";
import { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import type { LoadableState } from "../../replica/secondary/compose_replica.ts";
import type { BlockFile } from "../ram_dir/file_pages.ts";
import { RamDir } from "../ram_dir/ram_dir.ts";
import { RanAndEnded, Standby } from "./standby.ts";
import { quoteWord } from "./standby_command.ts";
import { delay } from "../system/delay.ts";
import { until } from "../../lab/program/until.ts";

const FAKE = new URL("../../lab/testing/fake_qemu.ts", import.meta.url).pathname;
const BLOCK_LIST = BLOCKS.map(([name, bytes]) => `${name}=${bytes}`).join(" ");

interface Scene {
  readonly replica: Replica;
  readonly standby: Standby;
  readonly folder: string;
  /** Where the replica's RAM is. */
  readonly files: readonly BlockFile[];
  /** Has the replica's state rehearsed, and the standby started for it. */
  check(): Promise<void>;
  /** Waits for the standby to be in a state. */
  standbyIs(state: string): Promise<void>;
}

/** A replica in files, and a standby for it that has been told of them. */
async function withStandby(options: readonly string[], body: (scene: Scene) => Promise<void>) {
  const folder = Deno.makeTempDirSync({ prefix: "kemari-standby-test-", dir: "/dev/shm" });
  const words = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", FAKE];
  const command = [...words, "--blocks", BLOCK_LIST, ...options].map(quoteWord).join(" ");
  const dir = RamDir.open(`${folder}/ram`);
  const standby = new Standby(command, dir.makeSocketFolder());
  dir.onImage = (files) => standby.image(files);
  const replica = new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()), dir);
  const full = fullStream(1);
  try {
    replica.begin({ full: true, based: false });
    replica.receive(full, 0, full.length);
    replica.commit(1);
    await body({
      replica,
      standby,
      folder,
      files: dir.files,
      async check() {
        await standby.check(replica, dir.files);
        standby.settle(true);
      },
      async standbyIs(state) {
        const isThere = () => standby.status.state === state;
        await until(isThere, `the standby to be ${state}`).catch((error) => {
          throw new Error(JSON.stringify(standby.status), { cause: error });
        });
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
  withStandby([], async ({ replica, standby, check, standbyIs }) => {
    await check();
    await standbyIs("ready");
    const { pid } = standby.status;
    assert.ok(isAlive(pid!));
    const vm = await standby.activate(replica, true);
    assert.ok(vm!.runningAt > vm!.loadedAt);
    assert.equal(standby.status.state, "running");
    assert.ok(isAlive(pid!), "it is its owner's to end");
    vm!.kill();
    await vm!.exitCode;
    // The shell around it may have ended a moment earlier.
    await until(() => !isAlive(pid!), "the VM to end");
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
  withStandby([], async ({ standby, check, standbyIs }) => {
    await check();
    for (let round = 1; round <= 2; round++) {
      await standbyIs("ready");
      const { pid } = standby.status;
      Deno.kill(pid!, "SIGKILL");
      await standbyIs("starting");
      await standbyIs("ready");
      assert.notEqual(standby.status.pid, pid);
      assert.equal(standby.status.restarts, round);
      assert.match(standby.status.reason!, /it has ended/);
    }
  }));

for (const [fault, reason] of [["no-load", /load of migration failed/], ["killed", /./]] as const) {
  Deno.test(`a standby that ends while it loads (${fault}) is dead for certain, and activation is cold`, () =>
    withStandby(["--fault", fault === "killed" ? "slow-load" : fault], async (scene) => {
      const { replica, standby, check, standbyIs } = scene;
      await check();
      await standbyIs("ready");
      const pid = standby.status.pid!;
      const activation = standby.activate(replica, true);
      if (fault === "killed") {
        await standbyIs("loading");
        await delay(100);
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
  withStandby(["--fault", "no-run"], async ({ replica, standby, check, standbyIs }) => {
    await check();
    await standbyIs("ready");
    const pid = standby.status.pid!;
    await assert.rejects(standby.activate(replica, true), RanAndEnded);
    assert.equal(standby.giveUp(), true);
    assert.ok(!isAlive(pid));
  }));

Deno.test("an activation that is given up while it loads never tells the VM to run", () =>
  withStandby(["--fault", "no-run"], async ({ replica, standby, check, standbyIs }) => {
    await check();
    await standbyIs("ready");
    const pid = standby.status.pid!;
    // It would fail otherwise: this standby ends when it is told to run.
    const activation = standby.activate(replica, true);
    while (standby.status.state === "ready") await Promise.resolve();
    assert.equal(standby.giveUp(), false);
    assert.equal(await activation, undefined);
    assert.equal(standby.giveUp(), false);
    assert.ok(!isAlive(pid), "no second VM may run beside it");
  }));

Deno.test("a VM that runs, and that nobody has taken over, ends with the standby", () =>
  withStandby([], async ({ replica, standby, check, standbyIs }) => {
    await check();
    await standbyIs("ready");
    const pid = standby.status.pid!;
    await standby.activate(replica, true);
    assert.equal(standby.giveUp(), true);
    await standby.close(false);
    assert.ok(!isAlive(pid));
  }));

Deno.test("a standby that was told to run and closes its monitor is not killed", () =>
  withStandby(["--fault", "mute-run"], async ({ replica, standby, check, standbyIs }) => {
    await check();
    await standbyIs("ready");
    const pid = standby.status.pid!;
    const vm = await standby.activate(replica, true);
    assert.equal(standby.status.state, "running");
    assert.ok(isAlive(pid));
    vm!.kill();
    await vm!.exitCode;
  }));

Deno.test("a standby that refuses to run has not run: it is ended, and the replica is whole", () =>
  withStandby(["--fault", "refused-run"], async ({ replica, standby, check, standbyIs }) => {
    await check();
    await standbyIs("ready");
    const pid = standby.status.pid!;
    assert.equal(await standby.activate(replica, true), undefined);
    assert.ok(!isAlive(pid), "no second VM may run beside it");
    assert.match(standby.status.reason!, /Failed to get a lock/);
  }));

/** A standby that has been rehearsed and waits, and whose next rehearsal has a fault. */
function withMisfit(fault: string, body: (scene: Scene, happened: () => boolean) => Promise<void>) {
  const once = Deno.makeTempFileSync({ prefix: "kemari-once-" });
  Deno.removeSync(once);
  return withStandby(["--fault", fault, "--once", once], async (scene) => {
    await scene.check();
    await scene.standbyIs("ready");
    Deno.writeTextFileSync(once, "");
    const folder = once.slice(0, once.lastIndexOf("/"));
    const isThere = () =>
      [...Deno.readDirSync(folder)].some(({ name }) => once.endsWith(`/${name}`));
    await body(scene, () => !isThere());
    if (isThere()) Deno.removeSync(once);
  });
}

/** The replica's state as it would be with one device more. */
function withDevice(replica: Replica): LoadableState {
  const { machine, blocks, sections } = replica.shape;
  const shape = { machine, blocks, sections: [...sections, { ...sections[0], name: "late" }] };
  return { shape, store: replica.store, compose: (shared) => replica.compose(shared) };
}

Deno.test("a standby that does not load other devices goes on for what it has loaded", () =>
  withMisfit("no-start", async ({ replica, standby, files, standbyIs }, happened) => {
    const { pid } = standby.status;
    await assert.rejects(
      standby.check(withDevice(replica), files),
      /^QemuError: QEMU, standby: late has come since it was tried last, .*: fake-qemu: cannot start/,
    );
    assert.ok(happened());
    await standbyIs("ready");
    assert.notEqual(standby.status.pid, pid);
    assert.equal(standby.rehearsed(files), replica.shape);
    const vm = await standby.activate(replica, true);
    vm!.kill();
    await vm!.exitCode;
  }));

for (const moment of ["as it begins", "while it reads"]) {
  Deno.test(`a takeover in the middle of a rehearsal does not wait for it: ${moment}`, () =>
    withMisfit("slow-rehearsal", async ({ replica, standby, files, standbyIs }, happened) => {
      const late = withDevice(replica);
      const checking = assert.rejects(standby.check(late, files), /not to be committed/);
      await standbyIs("checking");
      if (moment === "while it reads") await until(happened, "the rehearsal to begin to read");
      const begun = performance.now();
      const vm = await standby.activate(replica, true);
      assert.ok(vm !== undefined, "what was loaded before takes over, warm");
      // A rehearsal that is waited for takes thirty seconds to be given up.
      assert.ok(performance.now() - begun < 20_000);
      await checking;
      vm.kill();
      await vm.exitCode;
    }));
}

Deno.test("a standby is for the state that was committed upon its check, or for the one before", () =>
  withStandby([], async ({ replica, standby, files, check, standbyIs }) => {
    await check();
    const state = withDevice(replica);
    for (const isCommitted of [false, true]) {
      await standbyIs("ready");
      await standby.check(state, files);
      assert.equal(standby.status.state, "checking");
      standby.settle(isCommitted);
      assert.equal(standby.rehearsed(files), isCommitted ? state.shape : replica.shape);
    }
    await standbyIs("ready");
    assert.equal(standby.rehearsed([]), undefined, "other files");
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
      const copy = new Replica(1e8, undefined, new SecondaryTaps(new Map(), new Set()), dir);
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
      // Who is kept is there after a while.
      if (keep) await delay(300);
      else await until(() => !isAlive(pid), "the standby to end");
      assert.equal(isAlive(pid), keep);
      if (keep) Deno.kill(-pid, "SIGKILL");
    }
  }));
