/** A link over TLS whose connection is cut, and changed, by somebody between the two ends. */
import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { libc } from "../system/libc.ts";
import { never } from "../system/never.ts";
import { connectSocket, listenSocket } from "../system/socket.ts";
import { Relay, type Tamper } from "../tls/testing/relay.ts";
import { contentOf, Stage, testKey, tinyStream } from "./testing/link_stage.ts";

const SECURITY = testKey();

/** Somebody who listens, and passes each connection on to a stage's receiver. */
async function between(stage: Stage, tamper: { up?: Tamper; down?: Tamper }) {
  const path = `${stage.folder}/between`;
  const address = { kind: "unix", path, text: path } as const;
  const listener = await listenSocket(address, stage.reactor, never);
  const relays: Relay[] = [];
  const watch = stage.reactor.watch(listener.fd, {
    readable: () => {
      const left = listener.accept();
      if (left === undefined) return;
      void stage.connect().then((right) => {
        relays.push(new Relay(stage.reactor, left, right, tamper));
      });
    },
  });
  watch.want(true, false);
  return {
    path,
    get relay(): Relay {
      return relays.at(-1)!;
    },
    [Symbol.dispose]() {
      watch.stop();
      for (const relay of relays) relay.cut();
      listener.close();
    },
  };
}

/** What a whole session takes on the wire, up and down. */
async function sessionBytes(stream: Uint8Array): Promise<{ up: number; down: number }> {
  await using stage = await Stage.open({}, undefined, SECURITY);
  let up = 0;
  let down = 0;
  using relayed = await between(stage, {
    up: (bytes, offset) => (up = offset + bytes.length, bytes),
    down: (bytes, offset) => (down = offset + bytes.length, bytes),
  });
  await stage.send(stream, {}, undefined, relayed.path);
  await stage.receiver.receive(never);
  return { up, down };
}

const STREAM = tinyStream(5);
/** HANDOVER and TLS's close, a record each. */
const LAST_WIRE_BYTES = 20 + 22 + 2 + 22;

Deno.test("over TLS a connection that is cut anywhere leaves the replica whole or as it was", async () => {
  const total = await sessionBytes(STREAM);
  const seen = { before: 0, behind: 0 };
  for (const way of ["up", "down"] as const) {
    for (let at = 0; at < total[way]; at += way === "up" ? 61 : 17) {
      await using stage = await Stage.open({}, undefined, SECURITY);
      let over = false;
      const cut: Tamper = (bytes, offset) => {
        if (over) return undefined;
        if (offset + bytes.length <= at) return bytes;
        over = true;
        stage.reactor.after(0, () => relayed.relay.cut());
        return bytes.subarray(0, at - offset);
      };
      using relayed = await between(stage, { [way]: cut });
      const sent = await stage.send(STREAM, {}, undefined, relayed.path).catch((error) => error);
      // What was missing is no more than TLS's close.
      if (!(sent instanceof Error)) assert.ok(at > total[way] - LAST_WIRE_BYTES, `${way} ${at}`);
      else assert.ok(sent instanceof TransportError && sent.exitCode === 4, `${at}: ${sent}`);
      const { receiver } = stage;
      await stage.reactor.run(
        () => receiver.session === undefined && receiver.senders + receiver.strangers > 0,
        never,
      );
      const { committed } = receiver.replica;
      if (committed === 0) {
        assert.equal(contentOf(receiver.replica), "nothing");
        assert.equal(receiver.replica.memoryBytes, 0);
        seen.before++;
      } else seen.behind++;
      // HANDOVER may have come whole; that is known by nothing but itself.
      const mayHaveCome = way === "down" || at > total.up - LAST_WIRE_BYTES;
      assert.ok(mayHaveCome || receiver.state !== "activating", `${way} ${at}: no handover`);
    }
  }
  assert.ok(seen.before > 10, JSON.stringify(seen));
});

Deno.test("over TLS bytes that are changed on the wire never reach the replica", async () => {
  const stream = fullStream(1);
  const { up } = await sessionBytes(stream);
  for (let at = 0; at < up - 60; at += 97) {
    await using stage = await Stage.open({ graceMs: 300 }, undefined, SECURITY);
    const flip: Tamper = (bytes, offset) => {
      if (at >= offset && at < offset + bytes.length) bytes[at - offset] ^= 1 << at % 8;
      return bytes;
    };
    using relayed = await between(stage, { up: flip });
    const sent = await stage.send(stream, { graceMs: 300 }, undefined, relayed.path)
      .catch((error) => error);
    // The version in a record's head, of which TLS itself makes nothing in the first message.
    if (!(sent instanceof Error)) assert.ok(at < 300, `${at}`);
    else {
      assert.ok(sent instanceof TransportError, `${at}: ${sent}`);
      await stage.quiet();
      assert.equal(stage.receiver.replica.committed, 0, `bit flipped at ${at}`);
    }
  }
});

Deno.test("over TLS a sender's death is a loss, and its LEAVE is none", async () => {
  await using stage = await Stage.open({}, undefined, SECURITY);
  const { transport } = await stage.connection();
  assert.equal(transport.encryption.kind, "tls");
  transport.flush();
  transport.close();
  await stage.reactor.run(() => stage.receiver.strangers === 1, never);
  const path = `${stage.folder}/s`;
  libc().close(
    await connectSocket({ kind: "unix", path, text: path }, stage.reactor, 1000, never),
  );
  await stage.reactor.run(() => stage.receiver.strangers === 2, never);
  await stage.send(STREAM);
  assert.equal(await stage.receiver.receive(never), "handover");
});
