/** A VM that is given away: what breaks around the answer to its HANDOVER, at either end. */
import assert from "node:assert/strict";
import { fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { rawFrame, rawHello, RawPeer, rawTransaction } from "../../lab/testing/raw_peer.ts";
import { FakeDisk } from "../../replica/testing/fake_disk.ts";
import { SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import { encodeTapEvent, type TapEvent } from "../../replica/events/tap_events.ts";
import { concat } from "../../qemu/testing/synthetic_stream.ts";
import { decodeHello } from "../../txn/hello.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import { cString, libc } from "../system/libc.ts";
import { O_CLOEXEC, O_NONBLOCK } from "../system/linux.ts";
import { never } from "../system/never.ts";
import { connectionOver } from "./peer_connection.ts";
import { SenderLink } from "./sender_link.ts";
import { Stage } from "./testing/link_stage.ts";

const STREAM = fullStream(1);
const HANDOVER = rawFrame({ command: TXN.HANDOVER, transaction: 1 });
const GARBAGE = new TextEncoder().encode("no frame at all, and longer than any header is");

/** A receiver with one disk, whose copy's storage stalls once it has a first write; and its sender. */
async function stalledStage() {
  const copy = new FakeDisk(8192);
  const taps = new SecondaryTaps(
    new Map([["d", { mode: "replicated", sizeBytes: 8192, copy }]]),
    new Set(),
  );
  const stage = await Stage.open({ taps, onLoss: "wait", heartbeatMs: 20 });
  const events: TapEvent[] = [
    { kind: "disk", tap: "d", sizeBytes: 8192, mode: "replicated" },
    { kind: "copied", tap: "d" },
    { kind: "write", tap: "d", offset: 0, data: Uint8Array.of(7) },
  ];
  copy.isStalled = true;
  const payloads = events.map((event) => concat(...encodeTapEvent(event)));
  const during = <T>(task: Promise<T>) => stage.reactor.during(task, never);
  const peer = await during(RawPeer.connect(stage.path));
  await during(peer.greet());
  await during(peer.say(rawTransaction(1, STREAM, payloads)));
  await during(peer.expect(TXN.ACK));
  return { stage, peer, copy, during };
}

Deno.test("a HANDOVER that waits for a disk is acknowledged whatever stands behind it", async () => {
  const { stage, peer, copy, during } = await stalledStage();
  await using _ = stage;
  await during(peer.say(HANDOVER, GARBAGE));
  await stage.reactor.run(() => stage.receiver.session!.secondary.handingOver, never);
  // The sender must not take us for dead meanwhile.
  for (let beats = 0; beats < 3; beats++) {
    assert.equal((await during(peer.read(HEADER_BYTES)))![2], TXN.HEARTBEAT);
  }
  await during(peer.say(GARBAGE));
  assert.equal(stage.receiver.state, "receiving");
  copy.isStalled = false;
  copy.drain();
  assert.equal(await stage.receiver.receive(never), "handover");
  const answers = await during(peer.hearAll());
  assert.deepEqual(answers.map(({ command }) => command), [TXN.ACK]);
  peer.close();
});

Deno.test("a sender that goes before its HANDOVER is acknowledged is lost, and nothing is started later", async () => {
  const { stage, peer, copy, during } = await stalledStage();
  await using _ = stage;
  await during(peer.say(HANDOVER));
  await stage.reactor.run(() => stage.receiver.session!.secondary.handingOver, never);
  peer.close();
  await stage.quiet();
  assert.match(stage.receiver.lastLoss!, /the sender closed the connection before its ACK/);
  copy.isStalled = false;
  copy.drain();
  await stage.reactor.sleep(100, never);
  assert.equal(stage.receiver.state, "waiting");
});

Deno.test("an ACK that lies in front of a connection's end is found where writing fails first", async () => {
  await using stage = await Stage.open();
  const [up, down] = [new Int32Array(2), new Int32Array(2)];
  for (const pipe of [up, down]) libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK | O_CLOEXEC);
  const answer = (bytes: Uint8Array) =>
    libc().write(up[1], bytes as Uint8Array<ArrayBuffer>, BigInt(bytes.length));
  const said: number[] = [];
  const listen = () => {
    const buffer = new Uint8Array(65536);
    const count = Number(libc().read(down[0], buffer, 65536n));
    for (let i = 0; i < count; i++) said.push(buffer[i]);
  };
  const file = `${stage.folder}/stream`;
  Deno.writeFileSync(file, STREAM);
  const input = libc().open(cString(file), 0, 0);
  const close = () => {
    for (const fd of [up[0], down[1]]) libc().close(fd);
  };
  let isDeaf = false;
  const { watch } = stage.reactor;
  stage.reactor.watch = (fd, handlers) => {
    const readable = () => fd === up[0] && isDeaf ? undefined : handlers.readable?.();
    return watch.call(stage.reactor, fd, { ...handlers, readable });
  };
  const pipes = { input: up[0], output: down[1], name: "pipes", isSocket: false, close };
  const link = new SenderLink(stage.reactor, connectionOver(pipes), {
    commit: "async",
    stream: "auto",
    maxInFlightBytes: 2 ** 26,
    heartbeatMs: 20,
    graceMs: 5000,
    software: "test",
  });
  const cancelListening = stage.reactor.every(5, listen);
  link.attach({ input, output: -1, name: "QEMU" });
  await stage.reactor.run(() => said.length > HEADER_BYTES, never);
  const { session } = decodeHello(Uint8Array.from(said.slice(HEADER_BYTES)), 0);
  answer(rawHello({ session }));
  await stage.reactor.run(() => link.inFlight === 1 && !link.open, never);
  // Nobody reads the answer yet.
  const acked = rawFrame({ command: TXN.ACK, transaction: 1 });
  answer(acked);
  await stage.reactor.run(() => link.handingOver, never);
  cancelListening();
  // The receiver has said ACK and has gone; the sender's next HEARTBEAT is what finds out.
  isDeaf = true;
  libc().close(down[0]);
  answer(acked);
  libc().close(up[1]);
  await stage.reactor.run(() => link.handedOver, never);
  link.close();
  libc().close(input);
});
