/** `kemari recv --ram-dir`: killed and started again, started twice, without room. */
import assert from "node:assert/strict";
import { loadStream } from "../lab/recording/streams.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";
import { FROM_SOURCE, KemariProcess } from "../lab/program/kemari_process.ts";
import { delay } from "../host/system/delay.ts";
import { until } from "../lab/program/until.ts";

const STREAM = loadStream("plain-11.1-bios");
const STATE = vmStateOf(STREAM);
/** The stream's RAM has 16.5 MiB, and 16 MiB beside it must be free when it comes. */
const SIZE_FOR_ONE = 40 * 2 ** 20;

async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-ram-dir-", dir: "/dev/shm" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function receiver(folder: string, ...more: string[]): KemariProcess {
  const ramDir = ["--ram-dir", `${folder}/ram`];
  return new KemariProcess([
    "recv",
    `unix:${folder}/s`,
    "--control",
    `${folder}/c`,
    ...ramDir,
    ...more,
  ]);
}

/** Sends a stream, and dies before it is handed over. */
async function sendAndDie(folder: string, recv: KemariProcess, committed: RegExp) {
  await using send = new KemariProcess(["send", `unix:${folder}/s`], { stdin: "piped" });
  await send.write(STREAM);
  await recv.waitFor(committed);
  send.signal("SIGKILL");
  await send.ended();
  await recv.waitFor(/sender lost/);
}

async function failover(folder: string) {
  await using command = new KemariProcess(["failover", `${folder}/c`]);
  return await command.ended();
}

Deno.test("a killed recv's replica is offered by the next one, which needs no sender for it", () =>
  inFolder(async (folder) => {
    {
      await using first = receiver(folder);
      await first.listening();
      await sendAndDie(folder, first, /first transaction committed/);
      first.signal("SIGKILL");
      await first.ended();
    }
    await using second = receiver(folder);
    await second.waitFor(/going on with transaction 1 of pc-i440fx-/);
    await second.listening();
    assert.equal((await failover(folder)).code, 0);
    const { code, stdout } = await second.ended();
    assert.equal(code, 0);
    assert.deepEqual(vmStateOf(stdout), STATE);
    // It has gone to a VM: nobody may offer it again.
    assert.deepEqual([...Deno.readDirSync(`${folder}/ram`)], []);
  }));

Deno.test("a sender that comes back to the next recv sends only what its replica lacks", () =>
  inFolder(async (folder) => {
    {
      await using first = receiver(folder);
      await first.listening();
      await sendAndDie(folder, first, /first transaction committed/);
      first.signal("SIGKILL");
      await first.ended();
    }
    await using second = receiver(folder);
    await second.listening();
    await using send = new KemariProcess(["send", `unix:${folder}/s`, "--control", `${folder}/x`], {
      stdin: "piped",
    });
    await send.write(STREAM);
    await second.waitFor(/first transaction committed: \S+, (\d+) pages/);
    await using status = new KemariProcess(["status", `${folder}/x`, "--json"]);
    const told = JSON.parse(new TextDecoder().decode((await status.ended()).stdout));
    assert.equal(told.lastCommitted, 2);
    assert.ok(told.unchangedPages > 100 * told.pages, JSON.stringify(told));
    await send.closeStdin();
    const { code, stdout } = await second.ended();
    assert.equal(code, 0);
    assert.deepEqual(vmStateOf(stdout), STATE);
  }));

Deno.test("interrupted, recv leaves the folder that it was given with the replica in it", () =>
  inFolder(async (folder) => {
    await using recv = receiver(folder);
    await recv.listening();
    await sendAndDie(folder, recv, /first transaction committed/);
    recv.signal("SIGINT");
    const { code, stderr } = await recv.ended();
    assert.equal(code, 130);
    assert.match(stderr, /the replica stays for the next kemari recv/);
    await using next = receiver(folder);
    await next.waitFor(/going on with transaction 1/);
  }));

Deno.test("a second recv on the same files is refused, and the first is undisturbed", () =>
  inFolder(async (folder) => {
    await using first = receiver(folder);
    await first.listening();
    await using second = new KemariProcess([
      "recv",
      `unix:${folder}/t`,
      "--ram-dir",
      `${folder}/ram`,
    ]);
    const { code, stderr } = await second.ended();
    assert.equal(code, 4);
    assert.match(stderr, /ram: another kemari recv uses these files\nhint: /);
    await sendAndDie(folder, first, /first transaction committed/);
  }));

Deno.test({
  name: "a file system that is too small is refused before the first page (needs root: a tmpfs)",
  ignore: Deno.uid() !== 0,
  fn: () =>
    inFolder(async (folder) => {
      const mount = (...args: string[]) => new Deno.Command("mount", { args }).output();
      await Deno.mkdir(`${folder}/ram`);
      assert.ok((await mount("-t", "tmpfs", "-o", "size=6m", "none", `${folder}/ram`)).success);
      try {
        await using recv = receiver(folder);
        await recv.listening();
        await using send = new KemariProcess(["send", `unix:${folder}/s`], { stdin: "piped" });
        await send.write(STREAM);
        const { code, stderr } = await send.ended();
        assert.equal(code, 3);
        assert.match(stderr, /the guest's RAM takes up to [\d.]+ MiB, and [\d.]+ MiB are free/);
        recv.signal("SIGINT");
        await recv.ended();
      } finally {
        await new Deno.Command("umount", { args: ["--lazy", `${folder}/ram`] }).output();
      }
    }),
});

Deno.test({
  name:
    "two recvs on one file system: the second is refused for want of room (needs root: a tmpfs)",
  ignore: Deno.uid() !== 0,
  fn: () =>
    inFolder(async (folder) => {
      const shared = `${folder}/shared`;
      await Deno.mkdir(shared);
      const options = ["-t", "tmpfs", "-o", `size=${SIZE_FOR_ONE}`, "none", shared];
      assert.ok((await new Deno.Command("mount", { args: options }).output()).success);
      const receiverOn = (name: string) =>
        new KemariProcess([
          ...["recv", `unix:${folder}/${name}`, "--control", `${folder}/${name}-control`],
          ...["--ram-dir", `${shared}/${name}`],
        ]);
      const sendTo = async (name: string) => {
        await using send = new KemariProcess(["send", `unix:${folder}/${name}`], {
          stdin: "piped",
        });
        await send.write(STREAM);
        return await send.ended();
      };
      try {
        await using first = receiverOn("first");
        await first.listening();
        await using send = new KemariProcess(["send", `unix:${folder}/first`], { stdin: "piped" });
        await send.write(STREAM);
        await first.waitFor(/first transaction committed/);
        await using second = receiverOn("second");
        await second.listening();
        const refused = await sendTo("second");
        assert.equal(refused.code, 3);
        assert.match(refused.stderr, /the guest's RAM takes up to .* are free \(storage\)/);
        await using status = new KemariProcess(["status", `${folder}/first-control`]);
        const told = new TextDecoder().decode((await status.ended()).stdout);
        assert.match(told, /RAM files +\S+\/first, [\d.]+ MiB reserved/);
      } finally {
        await new Deno.Command("umount", { args: ["--lazy", shared] }).output();
      }
    }),
});

Deno.test("a killed recv with a standby leaves its sockets' folder for the next one to remove", () =>
  inFolder(async (folder) => {
    const folderOf = () => Deno.readTextFileSync(`${folder}/ram/sockets`);
    await using first = receiver(folder, "--standby", "sleep 60");
    await first.listening();
    const left = folderOf();
    assert.ok(Deno.statSync(left).isDirectory);
    {
      await using second = new KemariProcess([
        ...["recv", `unix:${folder}/other`, "--ram-dir", `${folder}/ram`],
        ...["--standby", "sleep 60"],
      ]);
      const { code, stderr } = await second.ended();
      assert.equal(code, 4, stderr);
      assert.match(stderr, /another kemari recv uses these files/);
      assert.ok(Deno.statSync(left).isDirectory, "the first is undisturbed");
    }
    first.signal("SIGKILL");
    await first.ended();
    await using third = receiver(folder, "--standby", "sleep 60");
    await third.listening();
    assert.throws(() => Deno.statSync(left), Deno.errors.NotFound);
    const own = folderOf();
    third.signal("SIGTERM");
    await third.ended();
    assert.throws(() => Deno.statSync(own), Deno.errors.NotFound);
  }));

Deno.test("a VM that was taken over outlives what others keep in the folder that recv has made", () =>
  inFolder(async (folder) => {
    const control = `${folder}/ram/control`;
    await using recv = new KemariProcess([
      ...["recv", `unix:${folder}/s`, "--ram-dir", `${folder}/ram`, "--control", control],
      ...["--exec", "cat > /dev/null; exec sleep 600"],
    ]);
    await recv.listening();
    await using send = new KemariProcess(["send", `unix:${folder}/s`], { stdin: "piped" });
    await send.write(STREAM);
    await send.closeStdin();
    assert.equal((await send.ended()).code, 0);
    await recv.waitFor(/activated transaction 1/);
    await using status = new KemariProcess(["status", control, "--json"]);
    const { code, stdout } = await status.ended();
    assert.equal(code, 0, recv.stderr);
    assert.equal(JSON.parse(new TextDecoder().decode(stdout)).state, "active");
    assert.deepEqual([...Deno.readDirSync(`${folder}/ram`)].map(({ name }) => name), ["control"]);
    recv.signal("SIGTERM");
    assert.equal((await recv.ended()).code, 130);
  }));

Deno.test("recv with a standby does not need anybody to read its stdout", () =>
  inFolder(async (folder) => {
    const words = [...FROM_SOURCE.slice(1), "recv", `unix:${folder}/s`, "--control", `${folder}/c`];
    const recv = new Deno.Command(FROM_SOURCE[0], {
      args: [...words, "--standby", "qemu-system-x86_64 -m 64", "--ram-dir", `${folder}/ram`],
      stdout: "piped",
      stderr: "null",
    }).spawn();
    await recv.stdout.cancel();
    try {
      await until(() => Deno.lstat(`${folder}/c`).then(() => true, () => false), "recv to listen");
      // Several times as long as it takes to notice.
      await delay(1000);
    } finally {
      recv.kill("SIGTERM");
    }
    assert.equal((await recv.status).code, 130);
  }));
