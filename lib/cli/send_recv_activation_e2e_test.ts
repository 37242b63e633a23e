/** `kemari recv` when it activates, or is told not to: stdout, fences, signals, control socket. */
import assert from "node:assert/strict";
import { KemariProcess, type StartOptions } from "../lab/program/kemari_process.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";
import {
  concat,
  configuration,
  deviceState,
  HEADER,
  memSize,
  page,
  ramSection,
  VMDESC,
} from "../qemu/testing/synthetic_stream.ts";
import { until } from "../lab/program/until.ts";

const STREAM = loadStream("plain-7.2-bios");
const STATE = vmStateOf(STREAM);

/** How an interrupted command ended, by itself: one that does not is cut off after a while. */
async function endedByItself(command: KemariProcess) {
  const ended = await command.ended();
  assert.equal(ended.code, 130, ended.stderr);
  assert.doesNotMatch(ended.stderr, /cut off/);
  return ended;
}

async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-activation-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** A recv that holds the VM as of transaction 1, and whose sender was killed. */
async function bereaved(
  folder: string,
  args: readonly string[],
  options: StartOptions = {},
  stream = STREAM,
) {
  const socket = `unix:${folder}/s`;
  const recv = new KemariProcess(["recv", socket, ...args], options);
  try {
    await recv.listening();
    await using send = new KemariProcess(["send", socket], { stdin: "piped" });
    await send.write(stream);
    await recv.waitFor(/first transaction committed/);
    send.signal("SIGKILL");
    await send.ended();
    await recv.waitFor(/(sender|primary) lost/);
    return recv;
  } catch (error) {
    await recv[Symbol.asyncDispose]();
    throw error;
  }
}

async function failover(control: string) {
  await using command = new KemariProcess(["failover", control]);
  return await command.ended();
}

async function status(control: string): Promise<Record<string, unknown>> {
  await using command = new KemariProcess(["status", control, "--json"]);
  const { code, stdout, stderr } = await command.ended();
  assert.equal(code, 0, stderr);
  return JSON.parse(new TextDecoder().decode(stdout));
}

async function sendWhole(socket: string) {
  await using send = new KemariProcess(["send", socket], { stdin: "piped" });
  await send.write(STREAM);
  await send.closeStdin();
  return await send.ended();
}

/** As `ulimit -f` does, for a process that runs. */
async function limitFiles(pid: number, limit: string): Promise<void> {
  const args = ["--pid", `${pid}`, `--fsize=${limit}`];
  assert.ok((await new Deno.Command("prlimit", { args }).output()).success);
}

/** Processes whose command line has this in it. */
/** A process that was killed may be seen a moment longer. */
async function assertGone(text: string): Promise<void> {
  await until(() => processesWith(text).length === 0, `no process with ${text}`);
}

function processesWith(text: string): number[] {
  const found: number[] = [];
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === Deno.pid) continue;
    try {
      if (Deno.readTextFileSync(`/proc/${name}/cmdline`).includes(text)) found.push(Number(name));
    } catch {
      // It has ended meanwhile.
    }
  }
  return found;
}

Deno.test("a file size limit on stdout: nothing is left there, the replica is kept, a second try works", () =>
  inFolder(async (folder) => {
    const control = `${folder}/c`;
    const path = `${folder}/out`;
    await using recv = await bereaved(folder, ["--control", control], { stdout: { path } });
    await limitFiles(recv.pid, "100000:unlimited");
    const full = await failover(control);
    assert.equal(full.code, 4);
    assert.match(full.stderr, /stdout: file too large/);
    assert.equal(Deno.statSync(path).size, 0);
    assert.equal((await status(control)).state, "waiting");
    await limitFiles(recv.pid, "unlimited");
    assert.equal((await failover(control)).code, 0);
    assert.equal((await recv.ended()).code, 0);
    assert.deepEqual(vmStateOf(await Deno.readFile(path)), STATE);
  }));

Deno.test({
  name: "a full disk under >>: what was in the file before stays as it was (needs root: a tmpfs)",
  ignore: Deno.uid() !== 0,
  fn: () =>
    inFolder(async (folder) => {
      const disk = `${folder}/disk`;
      await Deno.mkdir(disk);
      const mount = (...args: string[]) => new Deno.Command("mount", { args }).output();
      const mounted = await mount("-t", "tmpfs", "-o", "size=512k", "none", disk);
      assert.ok(mounted.success, "needs root, to mount a small tmpfs");
      try {
        await Deno.writeTextFile(`${disk}/out`, "before\n");
        const control = `${folder}/c`;
        const appending = { before: `exec 9>>'${disk}/out'; exec >&9;` };
        await using recv = await bereaved(folder, ["--control", control], appending);
        const full = await failover(control);
        assert.equal(full.code, 4);
        assert.match(full.stderr, /stdout: no space left on the device\nhint: free some space/);
        assert.equal(await Deno.readTextFile(`${disk}/out`), "before\n");
        assert.ok((await mount("-o", "remount,size=64m", disk)).success);
        // The sender may come back, too, and hand over.
        assert.equal((await sendWhole(`unix:${folder}/s`)).code, 0);
        assert.equal((await recv.ended()).code, 0);
        const written = await Deno.readFile(`${disk}/out`);
        assert.deepEqual(vmStateOf(written.subarray(7)), STATE);
      } finally {
        await new Deno.Command("umount", { args: [disk] }).output();
      }
    }),
});

Deno.test("stdout's reader has gone: exit 4, and it says so", () =>
  inFolder(async (folder) => {
    const control = `${folder}/c`;
    const before =
      `mkfifo '${folder}/p'; sleep 54321 <'${folder}/p' >/dev/null 2>&1 & exec >'${folder}/p';`;
    await using recv = await bereaved(folder, ["--control", control], { before });
    for (const pid of processesWith("sleep\x0054321")) Deno.kill(pid, "SIGKILL");
    assert.equal((await failover(control)).code, 4);
    const { code, stderr } = await recv.ended();
    assert.equal(code, 4);
    // It finds out by itself a moment later, if nobody asks.
    assert.match(
      stderr,
      /stdout: (the reader is gone|the process that was to take the VM has gone)/,
    );
  }));

Deno.test("a command that fails to take the VM: recv keeps it, and the next failover works", () =>
  inFolder(async (folder) => {
    const control = `${folder}/c`;
    const until = `until [ -e '${folder}/over' ]; do sleep 0.05; done`;
    const exec = `[ -e '${folder}/ok' ] || exit 7; cat >'${folder}/out'; ${until}; exit 5`;
    await using recv = await bereaved(folder, ["--control", control, "--exec", exec]);
    const failed = await failover(control);
    assert.equal(failed.code, 5);
    assert.match(failed.stderr, /the command stopped reading after \d+ bytes and ended with 7/);
    await Deno.writeTextFile(`${folder}/ok`, "");
    assert.equal((await failover(control)).code, 0);
    await Deno.writeTextFile(`${folder}/over`, "");
    assert.equal((await recv.ended()).code, 5);
    assert.deepEqual(vmStateOf(await Deno.readFile(`${folder}/out`)), STATE);
  }));

Deno.test("a command that takes the VM and ends at once has not loaded it: recv keeps it", () =>
  inFolder(async (folder) => {
    const control = `${folder}/c`;
    const exec = `cat >/dev/null; exit 1`;
    await using recv = await bereaved(folder, ["--control", control, "--exec", exec]);
    const failed = await failover(control);
    assert.equal(failed.code, 5);
    assert.match(failed.stderr, /--exec: the command took the VM's state and ended with 1\nhint: /);
    await recv.waitFor(/not activated: .*; keeping transaction 1/);
    recv.signal("SIGTERM");
    assert.equal((await recv.ended()).code, 130);
    // Without anybody who could ask again, recv ends, and says so by its status.
    const flags = ["--on-loss", "activate", "--fence", "none", "--exec", exec];
    await using alone = await bereaved(folder, flags);
    const { code, stderr } = await alone.ended();
    assert.equal(code, 5);
    assert.match(stderr, /the replica ends with this process/);
  }));

Deno.test("--on-loss activate: the fence decides, and its words are logged", () =>
  inFolder(async (folder) => {
    const flags = (fence: string) => ["--on-loss", "activate", "--fence", fence];
    await using good = await bereaved(folder, flags("echo power is off; echo really >&2"));
    const activated = await good.ended();
    assert.equal(activated.code, 0, activated.stderr);
    assert.match(activated.stderr, /fence: power is off\n/);
    assert.match(activated.stderr, /fence: really\n/);
    assert.deepEqual(vmStateOf(activated.stdout), STATE);

    await using bad = await bereaved(folder, flags("echo no route; exit 9"));
    const refused = await bad.ended();
    assert.deepEqual([refused.code, refused.stdout.length], [4, 0]);
    assert.match(refused.stderr, /--fence: failed with 9: not activating\nhint: .* is dead\n/);
    assert.match(refused.stderr, /the replica ends with this process/);

    await using none = await bereaved(folder, flags("none"));
    assert.equal((await none.ended()).code, 0);
  }));

Deno.test("a fence that hangs is ended with all it started; failover may be tried again", () =>
  inFolder(async (folder) => {
    const control = `${folder}/c`;
    const mark = `${folder}/unfenced`;
    await Deno.writeTextFile(mark, "");
    const fence = `[ ! -e '${mark}' ] || { sleep 98765 & wait; }`;
    await using recv = await bereaved(folder, [
      ...["--control", control, "--on-loss", "activate"],
      ...["--fence", fence, "--fence-timeout", "300ms"],
    ]);
    await recv.waitFor(/not activated: --fence: no end after 300 ms/);
    await assertGone("sleep\x0098765");
    assert.equal(recv.stdoutBytes, 0);
    // Strangers do not make it try again.
    using _stranger = await Deno.connect({ transport: "unix", path: `${folder}/s` });
    // Two who ask at once both learn the outcome.
    const both = await Promise.all([failover(control), failover(control)]);
    assert.deepEqual(both.map(({ code }) => code), [4, 4]);
    await Deno.remove(mark);
    assert.equal((await failover(control)).code, 0);
    assert.deepEqual(vmStateOf((await recv.ended()).stdout), STATE);
  }));

Deno.test("SIGINT and SIGTERM: exit 130 soon, at any time, and nothing is left behind", () =>
  inFolder(async (folder) => {
    const socket = `unix:${folder}/s`;
    const control = `${folder}/c`;
    const flags = ["--control", control, "--grace", "30s"];
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      // A sender and a receiver in the middle of a transaction.
      await using recv = new KemariProcess(["recv", socket, ...flags]);
      await recv.listening();
      await using send = new KemariProcess(
        ["send", socket, "--control", `${folder}/sc`, "--grace", "30s"],
        { stdin: "piped" },
      );
      await send.write(STREAM.subarray(0, 200_000));
      await recv.waitFor(/sender connected/);
      send.signal(signal);
      const sent = await endedByItself(send);
      assert.equal(sent.stdout.length, 0);
      assert.match(sent.stderr, new RegExp(`interrupted by ${signal}`));
      recv.signal(signal);
      assert.equal((await endedByItself(recv)).stdout.length, 0);

      // A receiver whose fence hangs.
      const hanging = ["--on-loss", "activate", "--fence", "sleep 87654", "--control", control];
      await using fencing = await bereaved(folder, hanging);
      await until(() => processesWith("sleep\x0087654").length > 0, "the fence");
      fencing.signal(signal);
      await endedByItself(fencing);
      await assertGone("sleep\x0087654");

      // A receiver whose QEMU runs.
      const exec = ["--exec", "cat >/dev/null; exec sleep 76543", "--control", control];
      await using active = await bereaved(folder, exec);
      assert.equal((await failover(control)).code, 0);
      assert.equal((await status(control)).state, "active");
      active.signal(signal);
      await endedByItself(active);
      await assertGone("sleep\x0076543");

      // A receiver whose stdout nobody empties.
      const stuck =
        `mkfifo '${folder}/p'; sleep 54321 <'${folder}/p' >/dev/null 2>&1 & exec >'${folder}/p';`;
      // More than a pipe holds, as the rest of these streams is not.
      const long = loadStream("plain-7.2-q35");
      const flagsToo = ["--control", control];
      await using writing = await bereaved(folder, flagsToo, { before: stuck }, long);
      const asking = failover(control);
      await until(async () => (await status(control)).state === "activating", "the takeover");
      writing.signal(signal);
      await endedByItself(writing);
      assert.equal((await asking).code, 4);
      for (const pid of processesWith("sleep\x0054321")) Deno.kill(pid, "SIGTERM");
      await Deno.remove(`${folder}/p`);

      assert.deepEqual([...Deno.readDirSync(folder)].map((entry) => entry.name), []);
    }
  }));

Deno.test("SIGTERM while 64 GB of RAM are written to a file that takes everything", () =>
  inFolder(async (folder) => {
    const control = `${folder}/c`;
    const huge = concat(
      HEADER,
      configuration(),
      ramSection("START", memSize([["pc.ram", 2 ** 36]])),
      ramSection("END", page(5, 1, "pc.ram")),
      deviceState(1),
      VMDESC,
    );
    const stdout = { path: "/dev/null" };
    await using recv = await bereaved(folder, ["--control", control], { stdout }, huge);
    await using asking = new KemariProcess(["failover", control]);
    await until(async () => (await status(control)).state === "activating", "the takeover");
    recv.signal("SIGTERM");
    await endedByItself(recv);
    assert.equal((await asking.ended()).code, 4);
  }));

Deno.test("SIGTERM while nobody answers: connecting, a mute peer, a command that is no kemari", () =>
  inFolder(async (folder) => {
    using mute = Deno.listen({ transport: "unix", path: `${folder}/mute` });
    for (const target of [`unix:${folder}/mute`, "exec:sleep 65432", "exec:sleep 65432; true"]) {
      await using send = new KemariProcess(["send", target, "--grace", "30s"], { stdin: "piped" });
      using _connected = target.startsWith("exec:") ? undefined : await mute.accept();
      if (target.startsWith("exec:")) {
        await until(() => processesWith("sleep\x0065432").length > 0, "the command");
      }
      send.signal("SIGTERM");
      await endedByItself(send);
    }
    await assertGone("sleep\x0065432");
    mute.close();
  }));

Deno.test("status says how a receiver and a sender are doing", () =>
  inFolder(async (folder) => {
    const socket = `unix:${folder}/s`;
    await using recv = new KemariProcess(["recv", socket, "--control", `${folder}/rc`]);
    await recv.listening();
    const idle = await status(`${folder}/rc`);
    const shape = { role: "receiver", state: "listening", machine: null, sender: null };
    assert.deepEqual(idle, {
      ...shape,
      ...{ lastCommitted: 0, lastCommittedAgeMs: null, syncs: 0, syncsPerSecond: 0 },
      ...{ pages: 0, zeroPages: 0, payloadBytes: 0, wireBytes: 0, replicaBytes: 0 },
      ...{ arriving: false, unreleased: 0, applying: null, lastLoss: null },
      ...{ incompleteDisks: [], pendingWrites: 0, longestSilenceMs: null },
      ...{
        standby: null,
        takeover: null,
        ram: null,
        deviceChange: null,
        vm: null,
        encryption: null,
      },
    });
    await using send = new KemariProcess(
      ["send", socket, "--control", `${folder}/sc`, "--session-name", "web-1"],
      { stdin: "piped" },
    );
    await send.write(STREAM);
    await recv.waitFor(/first transaction committed: pc/);
    const receiving = await status(`${folder}/rc`);
    assert.equal(receiving.state, "receiving");
    assert.match(String(receiving.machine), /^pc-i440fx-/);
    assert.match(String(receiving.sender), /web-1/);
    assert.equal(receiving.syncs, 1);
    assert.ok(Number(receiving.pages) > 50 && Number(receiving.zeroPages) > 1000);
    assert.ok(Number(receiving.lastCommittedAgeMs) >= 0);
    const sending = await status(`${folder}/sc`);
    assert.deepEqual(
      [sending.role, sending.state, sending.lastCommitted, sending.inFlight],
      ["sender", "synchronizing", 1, 0],
    );
    assert.deepEqual(Object.keys(sending.pause as object).sort(), ["count", "max", "p50", "p99"]);
    const refused = await failover(`${folder}/sc`);
    assert.equal(refused.code, 4);
    assert.match(refused.stderr, /this end is a sender: it cannot take over\nhint: /);
    const early = await failover(`${folder}/nothing`);
    assert.equal(early.code, 4);
    assert.match(early.stderr, /there is no such control socket\nhint: /);
  }));
