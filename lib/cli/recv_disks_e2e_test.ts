/** `kemari recv` and its disks: what they answer when the VM is to go on here, and which a session names. */
import assert from "node:assert/strict";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { rawFrame, RawPeer, rawTransaction } from "../lab/testing/raw_peer.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";
import { concat } from "../qemu/testing/synthetic_stream.ts";
import { encodeTapEvent, type TapEvent } from "../replica/events/tap_events.ts";
import { NACK_REASON, TXN } from "../txn/wire.ts";

const STREAM = loadStream("plain-7.2-bios");
const SIZE = 2 ** 20;
/** More than the small file systems below have room for. */
const PART = 400_000;

const payload = (event: TapEvent) => concat(...encodeTapEvent(event));
const named = (mode: "replicated" | "shared") =>
  payload({ kind: "disk", tap: "d", sizeBytes: SIZE, mode });
const COPIED = payload({ kind: "copied", tap: "d" });
const write = (value: number, lengthBytes = PART) =>
  payload({ kind: "write", tap: "d", offset: 0, data: new Uint8Array(lengthBytes).fill(value) });

/** @param small Whether the folder `m` in it is a file system with less room than {@link PART}. */
async function inFolder(small: boolean, body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-disks-" });
  try {
    await Deno.mkdir(`${folder}/m`);
    if (small) await mount("-t", "tmpfs", "-o", "size=256k", "none", `${folder}/m`);
    await Deno.writeFile(`${folder}/m/i`, new Uint8Array(0));
    await Deno.truncate(`${folder}/m/i`, SIZE);
    await body(folder);
  } finally {
    if (small) await new Deno.Command("umount", { args: ["--lazy", `${folder}/m`] }).output();
    await Deno.remove(folder, { recursive: true });
  }
}

async function mount(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command("mount", { args }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}

const makeRoom = (folder: string) => mount("-o", "remount,size=16m", `${folder}/m`);

async function startRecv(folder: string, mode: "replicated" | "shared", ...args: string[]) {
  const disk = `d=${folder}/m/i,unix:${folder}/n,mode=${mode}`;
  const recv = new KemariProcess(["recv", `unix:${folder}/s`, "--disk", disk, ...args]);
  await recv.listening();
  return recv;
}

function failover(folder: string, ...args: string[]) {
  return new KemariProcess(["failover", `${folder}/c`, ...args]).ended();
}

function firstBytes(folder: string): number[] {
  return [...Deno.readFileSync(`${folder}/m/i`).subarray(PART - 2, PART)];
}

const needsRoot = { ignore: Deno.uid() !== 0 };

Deno.test({
  name:
    "a disk without room at a failover: refused, kept, and done when there is room (needs root)",
  ...needsRoot,
  fn: () =>
    inFolder(true, async (folder) => {
      await using recv = await startRecv(folder, "replicated", "--control", `${folder}/c`);
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      await peer.say(rawTransaction(1, STREAM, [named("replicated"), COPIED, write(7)]));
      await peer.expect(TXN.ACK);
      // What is acknowledged already cannot be stored: the sender is told.
      const nack = await peer.expect(TXN.NACK);
      assert.equal(nack.payload[1], NACK_REASON.storage);
      peer.close();
      await recv.waitFor(/the sender was refused: .*no space left on the device; keeping/);
      for (let tried = 0; tried < 2; tried++) {
        const { code, stderr } = await failover(folder, "--stale");
        assert.equal(code, 4);
        assert.match(stderr, /m\/i: cannot write at \d+: no space left on the device/);
      }
      assert.match(
        recv.stderr,
        /not activated: .*no space left on the device; keeping transaction 1/,
      );
      await makeRoom(folder);
      const { code, stderr } = await failover(folder, "--stale");
      assert.equal(code, 0, stderr);
      const ended = await recv.ended();
      assert.deepEqual([ended.code, vmStateOf(ended.stdout)], [0, vmStateOf(STREAM)]);
      assert.deepEqual(firstBytes(folder), [7, 7]);
    }),
});

Deno.test({
  name: "a VM that was handed over waits for its disk, also where nobody can ask (needs root)",
  ...needsRoot,
  fn: () =>
    inFolder(true, async (folder) => {
      await using recv = await startRecv(folder, "shared");
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      await peer.say(rawTransaction(1, STREAM, [named("shared"), write(8)]));
      await peer.expect(TXN.ACK);
      await peer.say(rawFrame({ command: TXN.HANDOVER, transaction: 1 }));
      await peer.expect(TXN.ACK);
      await recv.waitFor(/no space left on the device; keeping transaction 1, and trying again/);
      assert.equal(recv.stdoutBytes, 0);
      await makeRoom(folder);
      const ended = await recv.ended();
      assert.deepEqual([ended.code, vmStateOf(ended.stdout)], [0, vmStateOf(STREAM)]);
      assert.deepEqual(firstBytes(folder), [8, 8]);
    }),
});

Deno.test({
  name: "behind a loss, without anybody who can ask, the replica waits for a sender (needs root)",
  ...needsRoot,
  fn: () =>
    inFolder(true, async (folder) => {
      const args = ["--on-loss", "activate", "--fence", "none"];
      await using recv = await startRecv(folder, "shared", ...args);
      {
        using peer = await RawPeer.connect(`${folder}/s`);
        await peer.greet();
        await peer.say(rawTransaction(1, STREAM, [named("shared"), write(8)]));
        await peer.expect(TXN.ACK);
      }
      await recv.waitFor(/keeping transaction 1 until a sender comes back: without --control/);
      // The primary is there again, and has what it needs.
      await makeRoom(folder);
      using peer = await RawPeer.connect(`${folder}/s`);
      assert.equal((await peer.greet()).committed, 1);
      await peer.say(rawTransaction(2, STREAM, [named("shared"), write(9)]));
      await peer.expect(TXN.ACK);
      await peer.say(rawFrame({ command: TXN.HANDOVER, transaction: 2 }));
      await peer.expect(TXN.ACK);
      const ended = await recv.ended();
      assert.deepEqual([ended.code, vmStateOf(ended.stdout)], [0, vmStateOf(STREAM)]);
      assert.deepEqual(firstBytes(folder), [9, 9]);
    }),
});

Deno.test("a session that names no disk is refused, and the state of one that did stays", () =>
  inFolder(false, async (folder) => {
    await using recv = await startRecv(folder, "replicated", "--control", `${folder}/c`);
    {
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      await peer.say(rawTransaction(1, STREAM, [named("replicated"), COPIED, write(5)]));
      await peer.expect(TXN.ACK);
    }
    await recv.waitFor(/sender lost: /);
    using stranger = await RawPeer.connect(`${folder}/s`);
    await stranger.greet();
    // In one breath, so that it has not heard the answer when it gives the VM away.
    await stranger.say(
      rawTransaction(2, STREAM),
      rawFrame({ command: TXN.HANDOVER, transaction: 2 }),
    );
    const nack = await stranger.expect(TXN.NACK);
    assert.deepEqual([nack.transaction, nack.payload[1]], [2, NACK_REASON.protocol]);
    const text = new TextDecoder().decode(nack.payload.subarray(2));
    assert.match(text, /recv has disk d, which the session's first transaction does not name/);
    assert.match(text, /give both sides the same --disk/);
    stranger.close();
    await recv.waitFor(/the sender was refused: .*keeping transaction 1/);
    assert.equal(recv.stdoutBytes, 0);
    const { code, stderr } = await failover(folder, "--stale");
    assert.equal(code, 0, stderr);
    const { stdout } = await recv.ended();
    assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM));
    assert.deepEqual(firstBytes(folder), [5, 5]);
  }));

Deno.test("a HANDOVER of an earlier session's state is refused", () =>
  inFolder(false, async (folder) => {
    await using recv = await startRecv(folder, "replicated", "--control", `${folder}/c`);
    {
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      await peer.say(rawTransaction(1, STREAM, [named("replicated"), COPIED]));
      await peer.expect(TXN.ACK);
    }
    await recv.waitFor(/sender lost: /);
    using peer = await RawPeer.connect(`${folder}/s`);
    await peer.greet();
    await peer.say(rawFrame({ command: TXN.HANDOVER, transaction: 1 }));
    const nack = await peer.expect(TXN.NACK);
    const text = new TextDecoder().decode(nack.payload.subarray(2));
    assert.match(text, /HANDOVER of transaction 1, of an earlier session/);
    peer.close();
    await recv.waitFor(/the sender was refused/);
    assert.equal(recv.stdoutBytes, 0);
  }));

const REFUSED: readonly (readonly [string, TapEvent, RegExp])[] = [
  [
    "zeroes nothing",
    { kind: "zero", tap: "d", offset: 0, lengthBytes: 0 },
    /a zero of d that zeroes nothing/,
  ],
  [
    "zeroes what is not there",
    { kind: "zero", tap: "d", offset: SIZE - 1, lengthBytes: 2 },
    /a zero up to 1048577 of disk d, which has 1048576 bytes/,
  ],
  [
    "writes nothing",
    { kind: "write", tap: "d", offset: 0, data: new Uint8Array(0) },
    /a write of d with 8 bytes behind the name/,
  ],
];
for (const [what, event, message] of REFUSED) {
  Deno.test(`an event that ${what} is refused when it comes, and harms no later session`, () =>
    inFolder(false, async (folder) => {
      await using recv = await startRecv(folder, "replicated");
      {
        using peer = await RawPeer.connect(`${folder}/s`);
        await peer.greet();
        await peer.say(rawTransaction(1, STREAM, [named("replicated"), payload(event)]));
        const nack = await peer.expect(TXN.NACK);
        assert.equal(nack.payload[1], NACK_REASON.protocol);
        assert.match(new TextDecoder().decode(nack.payload.subarray(2)), message);
      }
      await recv.waitFor(/waiting for another sender/);
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      await peer.say(rawTransaction(1, STREAM, [named("replicated"), COPIED, write(3)]));
      await peer.expect(TXN.ACK);
      await peer.say(rawFrame({ command: TXN.HANDOVER, transaction: 1 }));
      await peer.expect(TXN.ACK);
      assert.deepEqual(vmStateOf((await recv.ended()).stdout), vmStateOf(STREAM));
      assert.deepEqual(firstBytes(folder), [3, 3]);
    }));
}
