/** `kemari send` and `kemari recv` when something stands behind the last frame of a session. */
import assert from "node:assert/strict";
import { rawFrame, RawPeer, rawTransaction } from "../lab/testing/raw_peer.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { vmStateOf } from "../lab/vms/vm_state.ts";
import { encodeRefusal } from "../txn/refusal.ts";
import { OFFERED_FEATURES } from "../txn/hello.ts";
import { NACK_REASON, TXN } from "../txn/wire.ts";

const STREAM = loadStream("plain-7.2-bios");
const GARBAGE = new TextEncoder().encode("no frame at all, and longer than any header is");

async function inFolder(body: (folder: string) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-last-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const BEHIND: readonly (readonly [string, Uint8Array])[] = [
  ["garbage", GARBAGE],
  ["a BEGIN", rawFrame({ command: TXN.BEGIN, transaction: 2, flags: 1 })],
  ["a LEAVE", rawFrame({ command: TXN.LEAVE }, Uint8Array.of(0))],
];

for (const [what, bytes] of BEHIND) {
  Deno.test(`recv: ${what} behind a HANDOVER does not undo it`, () =>
    inFolder(async (folder) => {
      await using recv = new KemariProcess(["recv", `unix:${folder}/s`]);
      await recv.listening();
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      await peer.say(rawTransaction(1, STREAM));
      assert.equal((await peer.expect(TXN.ACK)).transaction, 1);
      await peer.say(rawFrame({ command: TXN.HANDOVER, transaction: 1 }), bytes);
      const answers = await peer.hearAll();
      assert.deepEqual(answers.map(({ command }) => command), [TXN.ACK]);
      const { code, stdout, stderr } = await recv.ended();
      assert.equal(code, 0, stderr);
      assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM));
    }));
}

Deno.test("recv: a connection that is reset behind a HANDOVER does not undo it", () =>
  inFolder(async (folder) => {
    await using recv = new KemariProcess(["recv", `unix:${folder}/s`]);
    await recv.listening();
    {
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      // All of it in one piece: what the receiver answers to the first part is never read.
      await peer.say(
        rawTransaction(1, STREAM),
        rawFrame({ command: TXN.HANDOVER, transaction: 1 }),
      );
    }
    const { code, stdout, stderr } = await recv.ended();
    assert.equal(code, 0, stderr);
    assert.deepEqual(vmStateOf(stdout), vmStateOf(STREAM));
  }));

Deno.test("recv: garbage behind a LEAVE does not make a refusal of it", () =>
  inFolder(async (folder) => {
    await using recv = new KemariProcess(["recv", `unix:${folder}/s`, "--on-loss", "exit"]);
    await recv.listening();
    using peer = await RawPeer.connect(`${folder}/s`);
    await peer.greet();
    await peer.say(rawTransaction(1, STREAM));
    await peer.expect(TXN.ACK);
    await peer.say(rawFrame({ command: TXN.LEAVE }, Uint8Array.of(1)), GARBAGE);
    const answers = await peer.hearAll();
    assert.deepEqual(answers.map(({ command }) => command), [TXN.LEFT]);
    const { code, stdout, stderr } = await recv.ended();
    assert.deepEqual([code, stdout.length], [0, 0], "a VM that was shut down is no failure");
    assert.match(stderr, /the VM was shut down at the primary; nothing is started here/);
  }));

Deno.test("recv: SIGTERM tells the sender that it is stopping; to send that is a loss", () =>
  inFolder(async (folder) => {
    await using recv = new KemariProcess(["recv", `unix:${folder}/s`]);
    await recv.listening();
    using peer = await RawPeer.connect(`${folder}/s`);
    await peer.greet();
    await peer.say(rawTransaction(1, STREAM), rawFrame({ command: TXN.BEGIN, transaction: 2 }));
    await peer.expect(TXN.ACK);
    recv.signal("SIGTERM");
    const nack = await peer.expect(TXN.NACK);
    assert.deepEqual([nack.transaction, nack.payload[1]], [0, NACK_REASON.stopping]);
    assert.equal(await peer.hear(), undefined);
    peer.close();
    assert.equal((await recv.ended(4500)).code, 130);

    await using next = new KemariProcess(["recv", `unix:${folder}/s`]);
    await next.listening();
    await using send = new KemariProcess(["send", `unix:${folder}/s`], { stdin: "piped" });
    await send.write(STREAM);
    await next.waitFor(/first transaction committed/);
    next.signal("SIGTERM");
    const { code, stderr } = await send.ended();
    assert.equal(code, 4, stderr);
    assert.match(stderr, /the secondary has ended, or is about to\nhint: /);
    assert.equal((await next.ended(4500)).code, 130);
  }));

/** A `kemari send` of a whole stream, and what a scripted receiver does when that is handed over. */
async function handOver(
  folder: string,
  features: number,
  answer: (peer: RawPeer) => Promise<void>,
) {
  using server = Deno.listen({ transport: "unix", path: `${folder}/s` });
  await using send = new KemariProcess(["send", `unix:${folder}/s`, "--heartbeat", "50ms"], {
    stdin: "piped",
  });
  const writing = send.write(STREAM).then(() => send.closeStdin());
  using peer = new RawPeer(await server.accept());
  const said = await peer.receiveUntilHandover(features);
  await answer(peer);
  await writing;
  const ended = await send.ended();
  return { ...ended, said };
}

const ACK = rawFrame({ command: TXN.ACK, transaction: 1 });
const NACK = rawFrame({ command: TXN.NACK }, encodeRefusal("internal", "a change of mind"));
for (const [what, bytes] of [...BEHIND, ["a NACK", NACK]] as const) {
  Deno.test(`send: ${what} behind the ACK of a HANDOVER does not undo it`, () =>
    inFolder(async (folder) => {
      const { code, stderr } = await handOver(
        folder,
        OFFERED_FEATURES,
        (peer) => peer.say(ACK, bytes),
      );
      assert.equal(code, 0, stderr);
      assert.match(stderr, /handed over after transaction 1/);
    }));
}

Deno.test("send: a connection that is reset behind the ACK of a HANDOVER does not undo it", () =>
  inFolder(async (folder) => {
    const { code, stderr } = await handOver(folder, OFFERED_FEATURES, async (peer) => {
      await peer.say(ACK);
      // Over what is not read of the HANDOVER.
      peer.close();
    });
    assert.equal(code, 0, stderr);
  }));

Deno.test("send: what fails at its own end behind a handover does not undo it", () =>
  inFolder(async (folder) => {
    // A monitor that says nothing, and goes when the VM is the secondary's: with taps that is an error.
    using monitor = Deno.listen({ transport: "unix", path: `${folder}/q` });
    const clients: Deno.Conn[] = [];
    const accepting = (async () => {
      for await (const client of monitor) clients.push(client);
    })();
    using server = Deno.listen({ transport: "unix", path: `${folder}/s` });
    using _network = Deno.listen({ transport: "unix", path: `${folder}/out` });
    const net = `n=unix:${folder}/in,unix:${folder}/out`;
    const args = ["send", `unix:${folder}/s`, "--qmp", `${folder}/q`, "--net", net];
    await using send = new KemariProcess(args, { stdin: "piped" });
    const writing = send.write(STREAM).then(() => send.closeStdin());
    const tooSoon = send.ended().then(({ stderr }) => assert.fail(stderr));
    using peer = new RawPeer(await Promise.race([server.accept(), tooSoon]));
    tooSoon.catch(() => {});
    await peer.receiveUntilHandover(OFFERED_FEATURES);
    await peer.say(ACK);
    await send.waitFor(/handed over after transaction 1/);
    monitor.close();
    await accepting.catch(() => {});
    for (const client of clients) client.close();
    await writing;
    const { code, stderr } = await send.ended();
    assert.equal(code, 0, stderr);
  }));

Deno.test("send: a HANDOVER without an answer ends with 4, and says what to look at first", () =>
  inFolder(async (folder) => {
    const { code, stderr } = await handOver(folder, OFFERED_FEATURES, (peer) => {
      peer.close();
      return Promise.resolve();
    });
    assert.equal(code, 4, stderr);
    assert.match(stderr, /broke off before it was acknowledged, so the secondary may run the VM/);
    assert.match(
      stderr,
      /hint: do not start the VM anywhere before you have looked at the secondary/,
    );
  }));

Deno.test("send: a receiver that offers nothing is sent nothing that would need it", () =>
  inFolder(async (folder) => {
    const { code, stderr, said } = await handOver(folder, 0, (peer) => peer.say(ACK));
    assert.equal(code, 0, stderr);
    const commands: ReadonlySet<number> = new Set(said.map(({ command }) => command));
    const plain = [TXN.HELLO, TXN.BEGIN, TXN.CONTINUE, TXN.COMMIT];
    assert.deepEqual([...commands].filter((command) => command !== TXN.HEARTBEAT).sort(), plain);
  }));
