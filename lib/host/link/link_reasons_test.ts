/** What a sender is told when its session ends at the receiver, and what it makes of that. */
import assert from "node:assert/strict";
import { rawFrame, rawHello, RawPeer, rawTransaction } from "../../lab/testing/raw_peer.ts";
import { TransportError } from "../../errors.ts";
import { fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { encodeRefusal } from "../../txn/refusal.ts";
import { decodeHello } from "../../txn/hello.ts";
import { NACK_REASON, TXN } from "../../txn/wire.ts";
import { never } from "../system/never.ts";
import { connectSocket } from "../system/socket.ts";
import { socketConnection } from "./peer_connection.ts";
import { SenderLink } from "./sender_link.ts";
import { Stage } from "./testing/link_stage.ts";

/** A sender that has said so much, and what it hears then. */
async function talk(
  stage: Stage,
  said: Uint8Array,
  then: (peer: RawPeer) => Promise<void> | void,
): Promise<string[]> {
  const during = <T>(task: Promise<T>) => stage.reactor.during(task, never);
  using peer = await during(RawPeer.connect(stage.path));
  await during(peer.greet());
  await during(peer.say(said));
  if (said.length > 0) await during(peer.expect(TXN.ACK));
  const ending = then(peer);
  const heard = await during(peer.hearAll());
  await ending;
  return heard.map(({ command, transaction, payload }) => {
    assert.equal(command, TXN.NACK);
    const reason = Object.entries(NACK_REASON).find(([, code]) => code === payload[1])![0];
    return `${reason} ${transaction}`;
  });
}

const COMMITTED = rawTransaction(1, fullStream(1));
const OPEN = rawFrame({ command: TXN.BEGIN, transaction: 2 });

Deno.test("a sender that has closed its side is told nothing", async () => {
  for (const isOpen of [false, true]) {
    await using stage = await Stage.open();
    const heard = await talk(stage, COMMITTED, async (peer) => {
      if (isOpen) await peer.say(OPEN);
      await peer.closeOutput();
    });
    assert.deepEqual(heard, []);
    await stage.quiet();
    assert.match(stage.receiver.lastLoss!, /the sender closed the connection/);
  }
});

Deno.test("a sender that is silent is told so", async () => {
  await using stage = await Stage.open({ heartbeatMs: 20, graceMs: 100 });
  assert.deepEqual(await talk(stage, COMMITTED, () => {}), ["silence 0"]);
});

Deno.test("a receiver that ends says so, whatever is open, and is not kept by a sender that stays", async () => {
  for (const isOpen of [false, true]) {
    await using stage = await Stage.open();
    const heard = await talk(stage, COMMITTED, async (peer) => {
      if (isOpen) await peer.say(OPEN);
      const open = () => stage.receiver.session?.secondary.open === isOpen;
      await stage.reactor.run(open, never);
      await stage.receiver.stop();
      assert.equal(stage.receiver.session, undefined);
    });
    assert.deepEqual(heard, ["stopping 0"]);
  }
});

Deno.test("a receiver that ends says nothing to whoever has not said HELLO", async () => {
  await using stage = await Stage.open({ onLoss: "wait" });
  await stage.receiver.stop();
  using silent = await stage.reactor.during(RawPeer.connect(stage.path), never);
  await stage.reactor.turn(never);
  await stage.receiver.stop();
  stage.receiver.close();
  assert.deepEqual(await stage.reactor.during(silent.hearAll(), never), []);
});

Deno.test("to its sender, a receiver that ends is as lost as one that goes without a word", async () => {
  await using stage = await Stage.open();
  const path = `${stage.folder}/other`;
  using listener = Deno.listen({ transport: "unix", path });
  const during = <T>(task: Promise<T>) => stage.reactor.during(task, never);
  const accepted = listener.accept();
  const fd = await connectSocket({ kind: "unix", path, text: path }, stage.reactor, 1000, never);
  const link = new SenderLink(stage.reactor, socketConnection(fd, "the socket"), {
    commit: "async",
    stream: "colo",
    maxInFlightBytes: 2 ** 26,
    heartbeatMs: 200,
    graceMs: 2000,
    software: "test",
  });
  using peer = new RawPeer(await during(accepted));
  const { session } = decodeHello((await during(peer.expect(TXN.HELLO))).payload, 0);
  await during(peer.say(rawHello({ session })));
  await stage.reactor.run(() => link.ready, never);
  await peer.say(rawFrame({ command: TXN.NACK }, encodeRefusal("stopping", "ending")));
  await assert.rejects(stage.reactor.run(() => false, never), (error) => {
    assert.ok(error instanceof TransportError, `${error}`);
    assert.match(error.message, /the secondary has ended, or is about to/);
    return error.party === "peer" && error.exitCode === 4;
  });
  link.close();
});
