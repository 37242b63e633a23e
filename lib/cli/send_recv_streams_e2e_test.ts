/** `kemari send` and `kemari recv` as a shell sees them: streams that arrive. */
import assert from "node:assert/strict";
import { replayColo } from "../lab/recording/colo_replay.ts";
import {
  FROM_SOURCE_WORDS,
  KemariProcess,
  type StartOptions,
} from "../lab/program/kemari_process.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { vmStateOf, vmStatesOf } from "../lab/vms/vm_state.ts";
import { concat } from "../qemu/testing/synthetic_stream.ts";
import { until } from "../lab/program/until.ts";

const STREAM = "plain-11.1-virtio";
const QUICK = ["--heartbeat", "100ms", "--grace", "2s"];

async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-streams-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Sends the file and expects the VM to arrive, on recv's stdout. */
async function roundTrip(
  folder: string,
  listen: string,
  stream: Uint8Array,
  options: StartOptions = {},
) {
  const path = `${folder}/stream`;
  await Deno.writeFile(path, stream);
  await using recv = new KemariProcess(["recv", listen], options);
  const address = await recv.listening();
  const target = listen.startsWith("unix:") ? listen : address;
  await using send = new KemariProcess(["send", target], { ...options, stdin: { path } });
  const [sent, received] = await Promise.all([send.ended(), recv.ended()]);
  assert.deepEqual([sent.code, sent.stdout.length], [0, 0], sent.stderr);
  assert.equal(received.code, 0, received.stderr);
  return received.stdout;
}

for (const [name, listen] of [["tcp", "127.0.0.1:0"], ["unix", "unix:FOLDER/s"]]) {
  Deno.test(`a plain stream goes through ${name} whole`, () =>
    inFolder(async (folder) => {
      const stream = loadStream(STREAM);
      const out = await roundTrip(folder, listen.replace("FOLDER", folder), stream);
      assert.deepEqual(vmStateOf(out), vmStateOf(stream));
      // No socket file is left.
      assert.deepEqual([...Deno.readDirSync(folder)].map((entry) => entry.name), ["stream"]);
    }));
}

Deno.test("recorded plain streams of every QEMU arrive as they were", () =>
  inFolder(async (folder) => {
    for (const name of ["plain-7.2-xbzrle", "plain-10.0-numa", "plain-11.1-q35"]) {
      const stream = loadStream(name);
      const out = await roundTrip(folder, "127.0.0.1:0", stream);
      assert.deepEqual(vmStateOf(out), vmStateOf(stream), name);
      // What comes out is a stream like any other.
      if (name !== "plain-10.0-numa") continue;
      assert.deepEqual(await roundTrip(folder, "127.0.0.1:0", out), out);
    }
  }));

Deno.test("dist/kemari sends and receives a stream", () =>
  inFolder(async (folder) => {
    const stream = loadStream(STREAM);
    const dist = new URL("../../dist/kemari", import.meta.url).pathname;
    const out = await roundTrip(folder, `unix:${folder}/s`, stream, { program: [dist] });
    assert.deepEqual(vmStateOf(out), vmStateOf(stream));
  }));

Deno.test("a plain stream with a return path is answered as recorded, then handed over", () =>
  inFolder(async (folder) => {
    const socket = `unix:${folder}/s`;
    await using recv = new KemariProcess(["recv", socket]);
    await recv.listening();
    await using send = new KemariProcess(["send", socket], { stdin: "piped" });
    const said = await replayColo("plain-11.1-return-path", send);
    await send.closeStdin();
    const sent = await send.ended();
    assert.deepEqual([sent.code, sent.stdout.length], [0, 0], sent.stderr);
    assert.deepEqual(vmStateOf((await recv.ended()).stdout), vmStateOf(said));
  }));

Deno.test("exec: runs recv stdio: at the other end of two pipes", () =>
  inFolder(async (folder) => {
    const stream = loadStream(STREAM);
    await Deno.writeFile(`${folder}/stream`, stream);
    const recv = `exec:${FROM_SOURCE_WORDS} recv stdio: --exec 'cat >${folder}/out; exit 0'`;
    await using send = new KemariProcess(["send", recv], { stdin: { path: `${folder}/stream` } });
    const { code, stderr, stdout } = await send.ended();
    assert.deepEqual([code, stdout.length], [0, 0], stderr);
    assert.deepEqual(vmStateOf(await Deno.readFile(`${folder}/out`)), vmStateOf(stream));
  }));

Deno.test("recv stdio: with --exec ends with its command's exit code", () =>
  inFolder(async (folder) => {
    const stream = loadStream("plain-7.2-bios");
    await Deno.writeFile(`${folder}/stream`, stream);
    const socket = `unix:${folder}/s`;
    await using recv = new KemariProcess([
      "recv",
      socket,
      "--exec",
      "cat >/dev/null; sleep 2; exit 9",
    ]);
    await recv.listening();
    await using send = new KemariProcess(["send", socket], { stdin: { path: `${folder}/stream` } });
    assert.equal((await send.ended()).code, 0);
    assert.equal((await recv.ended()).code, 9);
  }));

Deno.test("several streams on one stdin are one transaction each, and equal pages stay here", () =>
  inFolder(async (folder) => {
    const first = loadStream("plain-11.1-virtio");
    // The same VM with one page changed, and once more as it was.
    const changed = first.slice();
    const at = changed.findLastIndex((byte, i) => byte !== 0 && i < changed.length - 400_000);
    changed[at] ^= 0xff;
    const last = vmStateOf(first);
    await using recv = new KemariProcess(["recv", `unix:${folder}/s`, "--control", `${folder}/rc`]);
    await recv.listening();
    await using send = new KemariProcess(
      ["send", `unix:${folder}/s`, "--control", `${folder}/sc`, ...QUICK],
      { stdin: "piped" },
    );
    await send.write(concat(first, changed, first));
    const sender = await statusWhere(`${folder}/sc`, (status) => status.lastCommitted === 3);
    assert.deepEqual([sender.syncs, sender.mode, sender.inFlight], [3, "stream", 0]);
    assert.ok(Number(sender.unchangedPages) > 8000, `${sender.unchangedPages} unchanged`);
    assert.ok(Number(sender.wireBytes) < 2.2 * first.length, `${sender.wireBytes} on the wire`);
    const receiver = await statusWhere(`${folder}/rc`, (status) => status.lastCommitted === 3);
    // What was put in between, where a page that names its block stayed here, the receiver counts.
    const added = Number(receiver.payloadBytes) - Number(sender.payloadBytes);
    assert.ok(added >= 0 && added < 1000, `${added} bytes added`);
    assert.equal(recv.stdoutBytes, 0);
    await send.closeStdin();
    const [sent, received] = await Promise.all([send.ended(), recv.ended()]);
    assert.deepEqual([sent.code, received.code], [0, 0], sent.stderr + received.stderr);
    assert.deepEqual(vmStateOf(received.stdout), last);
  }));

/** Asks a control socket as any program could. */
async function ask(path: string, command: string): Promise<Record<string, unknown>> {
  using connection = await Deno.connect({ transport: "unix", path });
  await connection.write(new TextEncoder().encode(JSON.stringify({ command }) + "\n"));
  let text = "";
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(65536);
  while (!text.includes("\n")) {
    const count = await connection.read(buffer);
    if (count === null) break;
    text += decoder.decode(buffer.subarray(0, count), { stream: true });
  }
  return JSON.parse(text);
}

async function statusWhere(path: string, holds: (status: Record<string, unknown>) => boolean) {
  let status: Record<string, unknown> | undefined;
  await until(async () => {
    status = await ask(path, "status").catch(() => undefined);
    return status !== undefined && holds(status);
  }, "the status that is wanted");
  return status!;
}

for (
  const [name, commit, checkpoints, extra] of [
    ["colo-11.1-dirty", "async", 8, []],
    ["colo-11.1-xbzrle", "sync", 8, []],
    ["colo-11.1-dirty", "sync", 3, []],
    ["colo-7.2", "async", 1, ["--stream", "colo"]],
  ] as const
) {
  Deno.test(`${name}, --commit ${commit}: QEMU is answered as recorded, failover gives the last of ${checkpoints}`, () =>
    inFolder(async (folder) => {
      const socket = `unix:${folder}/s`;
      const control = `${folder}/c`;
      await using recv = new KemariProcess(["recv", socket, "--control", control]);
      await recv.listening();
      await using send = new KemariProcess(["send", socket, "--commit", commit, ...extra], {
        stdin: "piped",
      });
      const said = await replayColo(name, send, checkpoints);
      const states = vmStatesOf(said);
      const committed = await statusWhere(
        control,
        (status) => status.lastCommitted === states.length,
      );
      assert.equal(committed.lastCommitted, states.length);
      assert.equal(recv.stdoutBytes, 0);
      await send.closeStdin();
      const sent = await send.ended();
      assert.deepEqual([sent.code, sent.stdout.length], [4, 0], sent.stderr);
      assert.match(sent.stderr, /the COLO stream broke off/);
      await recv.waitFor(/sender lost: .*keeping transaction/);
      assert.deepEqual(await ask(control, "failover"), { ok: true });
      const received = await recv.ended();
      assert.equal(received.code, 0, received.stderr);
      assert.deepEqual(vmStateOf(received.stdout), states.at(-1));
    }));
}

Deno.test("a sender killed inside a checkpoint: failover gives the checkpoint before it", () =>
  inFolder(async (folder) => {
    const name = "colo-11.1-dirty";
    const socket = `unix:${folder}/s`;
    const control = `${folder}/c`;
    await using recv = new KemariProcess(["recv", socket, "--control", control]);
    await recv.listening();
    await using send = new KemariProcess(["send", socket], { stdin: "piped" });
    const said = await replayColo(name, send, 4);
    const states = vmStatesOf(said);
    assert.equal(states.length, 5);
    await statusWhere(control, (status) => status.lastCommitted === 5);
    // The next checkpoint, up to its middle: the request, its reply, half of the rest.
    const rest = loadStream(name).subarray(said.length);
    await send.write(rest.subarray(0, 4));
    assert.deepEqual([...await send.readStdout(4)], [0, 0, 0, 2]);
    const before = Number((await ask(control, "status")).wireBytes);
    await send.write(rest.subarray(4, 300_000));
    await statusWhere(control, (status) => Number(status.wireBytes) > before + 200_000);
    send.signal("SIGKILL");
    await recv.waitFor(/sender lost: .*keeping transaction 5/);
    assert.equal(recv.stdoutBytes, 0);
    assert.deepEqual(await ask(control, "failover"), { ok: true });
    assert.deepEqual(vmStateOf((await recv.ended()).stdout), states[4]);
  }));
