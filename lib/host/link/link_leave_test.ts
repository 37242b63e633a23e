/** A sender that leaves, also in the middle of something: the secondary hears it, and starts nothing. */
import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { concat, fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { encodeLeave } from "../../txn/leave.ts";
import { decodeHello, encodeHello } from "../../txn/hello.ts";
import { encodeHeader } from "../../txn/frame_header.ts";
import { HEADER_BYTES, TXN } from "../../txn/wire.ts";
import { loadStream } from "../../lab/recording/streams.ts";
import { OutputQueue } from "../system/channel.ts";
import { cString, libc } from "../system/libc.ts";
import type { Reactor, Watch } from "../system/reactor.ts";
import { compressionOf } from "./compress_settings.ts";
import type { SenderLinkSettings } from "./sender_link_settings.ts";
import { connectionOver, socketConnection } from "./peer_connection.ts";
import { SenderLink } from "./sender_link.ts";
import { Stage, tinyStream, wireOf } from "./testing/link_stage.ts";
import { O_CLOEXEC, O_NONBLOCK, O_WRONLY } from "../system/linux.ts";
import { connectSocket } from "../system/socket.ts";
import { never } from "../system/never.ts";

const OPTIONS = {
  commit: "async",
  maxInFlightBytes: 2 ** 26,
  heartbeatMs: 200,
  graceMs: 2000,
  software: "test",
} as const;
/** Notes how long each wait was to be that is sat out to its end, of those that one would notice. */
function waitsOf(reactor: Reactor): number[] {
  const waits: number[] = [];
  const after = reactor.after.bind(reactor);
  reactor.after = (delayMs, callback) =>
    after(delayMs, () => {
      if (delayMs >= 1000) waits.push(delayMs);
      callback();
    });
  return waits;
}

const STEP_BYTES = 4096;
/** A HANDOVER is what a stream's wire ends with. */
const HANDOVER_BYTES = 20;

for (const compress of ["delta", "zstd"] as const) {
  Deno.test(`LEAVE gets out while a checkpoint is held (${compress})`, async () => {
    await using stage = await Stage.open({ onLoss: "activate" });
    const pipe = new Int32Array(2);
    libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK | O_CLOEXEC);
    const [input, output] = pipe;
    const stream = loadStream("colo-11.1-dirty");
    const queue = new OutputQueue(output, "QEMU");
    const peer = socketConnection(await stage.connect(), "the socket");
    const compression = compressionOf({ compress, deltaCacheBytes: 2 ** 24 });
    const link = new SenderLink(stage.reactor, peer, { ...OPTIONS, compression, stream: "colo" });
    link.attach({ input, output: -1, name: "QEMU" });
    const { counters } = link.primary;
    for (let at = 0; at < stream.length; at += STEP_BYTES) {
      queue.push([stream.subarray(at, at + STEP_BYTES)]);
      await stage.reactor.run(() => queue.flush(), never);
      await stage.reactor.sleep(link.inFlight + counters.committed > 0 ? 2 : 0, never);
      if (counters.committed > 0 && link.primary.holding) break;
    }
    assert.ok(link.primary.holding, "in the middle of a checkpoint");
    assert.equal(await link.leave("vm-ended", "host-signal"), true);
    link.close();
    await stage.quiet();
    // What was held of the next one is cancelled.
    const { committed } = stage.receiver.replica;
    assert.deepEqual([stage.receiver.state, committed], ["waiting", link.transaction]);
    assert.match(stage.receiver.lastLoss!, /shut down at the primary \(host-signal\)/);
    for (const fd of pipe) libc().close(fd);
  });
}

Deno.test("digests that come behind LEAVE begin nothing", async () => {
  await using stage = await Stage.open({ onLoss: "activate" });
  const file = `${stage.folder}/stream`;
  Deno.writeFileSync(file, tinyStream(1));
  const options = { ...OPTIONS, stream: "snapshots" } as const;
  const first = await linkTo(stage, file, options);
  await stage.reactor.run(() => first.link.primary.counters.committed === 1, never);
  assert.equal(await first.link.leave(), true);
  first.end();
  await stage.quiet();
  // The same VM again: what the replica has of it is asked for first.
  const { watch, every } = stage.reactor;
  const watches: Watch[] = [];
  stage.reactor.watch = (fd, handlers) => {
    watches.push(watch.call(stage.reactor, fd, handlers));
    return watches.at(-1)!;
  };
  stage.reactor.every = () => () => {};
  const { link, end } = await linkTo(stage, file, options);
  Object.assign(stage.reactor, { watch, every });
  await stage.reactor.run(() => link.ready, never);
  const hello = link.sent.framing;
  await stage.reactor.run(() => link.sent.framing > hello, never);
  // The answer lies in the socket when LEAVE is said.
  watches[0].want(false, false);
  await stage.reactor.sleep(200, never);
  assert.equal(await link.leave(), true);
  end();
  await stage.quiet();
  assert.equal(stage.receiver.state, "waiting");
});

/** A link that is given a file for QEMU's stream. */
async function linkTo(stage: Stage, file: string, options: SenderLinkSettings) {
  const input = libc().open(cString(file), 0, 0);
  const peer = socketConnection(await stage.connect(), "the socket");
  const link = new SenderLink(stage.reactor, peer, options);
  link.attach({ input, output: -1, name: "QEMU" });
  const end = () => {
    link.close();
    libc().close(input);
  };
  return { link, end };
}

Deno.test("a link that is left says whether the secondary knows, and comes to its end in order", async () => {
  await using stage = await Stage.open();
  const link = new SenderLink(
    stage.reactor,
    socketConnection(await stage.connect(), "the socket"),
    { ...OPTIONS, stream: "auto" },
  );
  assert.equal(await link.leave(), false, "nobody is there to be told before HELLO is answered");
  await stage.reactor.run(() => link.ready, never);
  assert.deepEqual(link.state, { at: "running" });
  assert.equal(await link.leave("goes-on", "why"), true);
  assert.deepEqual(link.state, { at: "left", by: "answer" });
  // The secondary closes its side, which is no loss any more.
  await stage.quiet();
  await stage.reactor.sleep(50, never);
  link.quiesce();
  assert.deepEqual(link.state, { at: "quiet" });
  link.close();
  assert.deepEqual(link.state, { at: "closed" });
  assert.match(stage.receiver.lastLoss!, /\(why\)/);
  assert.equal(await link.leave(), false);
});

Deno.test("what fails beside a link that is left is not its secondary's end", async () => {
  await using stage = await Stage.open();
  const peer = socketConnection(await stage.connect(), "the socket");
  const link = new SenderLink(stage.reactor, peer, { ...OPTIONS, stream: "auto" });
  await stage.reactor.run(() => link.ready, never);
  const cancel = stage.reactor.every(1, () => {
    throw new TransportError("tap0", "read", "the interface is gone", { party: "net" });
  });
  assert.equal(await link.leave("goes-on"), true);
  cancel();
  assert.deepEqual(link.state, { at: "left", by: "answer" });
  link.close();
  await stage.quiet();
});

Deno.test("a secondary that is lost while it is left is not waited for", async () => {
  await using stage = await Stage.open();
  const peer = socketConnection(await stage.connect(), "the socket");
  const link = new SenderLink(stage.reactor, peer, { ...OPTIONS, stream: "auto" });
  await stage.reactor.run(() => link.ready, never);
  const waits = waitsOf(stage.reactor);
  stage.reactor.fail(new TransportError("the socket", "read", "reset", { party: "peer" }));
  assert.equal(await link.leave("goes-on"), false);
  assert.deepEqual(waits, [], "no answer can come");
  link.close();
  await stage.quiet();
});

Deno.test("a secondary that goes without a word has not heard that it is left", async () => {
  await using stage = await Stage.open();
  const [up, down] = [new Int32Array(2), new Int32Array(2)];
  for (const pipe of [up, down]) libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK | O_CLOEXEC);
  const pipes = { input: up[0], output: down[1], name: "pipes", isSocket: false, close: () => {} };
  const peer = connectionOver(pipes);
  const link = new SenderLink(stage.reactor, peer, { ...OPTIONS, stream: "auto" });
  const said = new Uint8Array(1000);
  const count = Number(libc().read(down[0], said, 1000n));
  const hello = encodeHello(decodeHello(said.subarray(HEADER_BYTES, count), 0));
  const header = { command: TXN.HELLO, flags: 0, sequence: 0, transaction: 0 };
  const answer = concat(encodeHeader({ ...header, lengthBytes: hello.length }), hello);
  libc().write(up[1], answer as Uint8Array<ArrayBuffer>, BigInt(answer.length));
  await stage.reactor.run(() => link.ready, never);
  const left = link.leave();
  assert.deepEqual(link.state, { at: "leaving" });
  libc().close(up[1]);
  assert.equal(await left, false);
  assert.deepEqual(link.state, { at: "left", by: "end" });
  link.close();
  for (const fd of [up[0], ...down]) libc().close(fd);
});

Deno.test("of a VM that goes on or was shut down elsewhere, no plain failover makes a second one", async () => {
  for (const reason of ["goes-on", "vm-ended"] as const) {
    await using stage = await Stage.open({ onLoss: "activate" });
    const wire = await wireOf(fullStream(40));
    const said = encodeLeave({ reason, text: "why" });
    const header = { command: TXN.LEAVE, flags: 0, sequence: 0, transaction: 0 };
    const leave = concat(encodeHeader({ ...header, lengthBytes: said.length }), said);
    await stage.speak(concat(wire.subarray(0, -HANDOVER_BYTES), leave), 100);
    await stage.quiet();
    assert.equal(stage.receiver.state, "waiting", "nothing is started by itself");
    assert.match(stage.receiver.lastLoss!, /\(why\)/);
    assert.throws(() => stage.receiver.failover(), /transaction 1 is not the VM's last state/);
    stage.receiver.failover(true);
    assert.equal(await stage.receiver.receive(never), "failover");
  }
});

Deno.test("a secondary that has closed the connection is found gone once, and told nothing for long", async () => {
  await using stage = await Stage.open();
  const path = `${stage.folder}/silent`;
  const listener = Deno.listen({ transport: "unix", path });
  const fd = await connectSocket({ kind: "unix", path, text: path }, stage.reactor, 1000, never);
  (await listener.accept()).close();
  listener.close();
  // What is written gets out all the same, so that only the input tells of the end.
  const output = libc().open(cString("/dev/null"), O_WRONLY | O_CLOEXEC, 0);
  const close = () => void libc().close(fd);
  const peer = connectionOver({ input: fd, output, name: "the socket", isSocket: true, close });
  const link = new SenderLink(stage.reactor, peer, { ...OPTIONS, stream: "colo" });
  await assert.rejects(stage.reactor.run(() => false, never), /the secondary closed/);
  // Whoever serves its VM's disks on does that in the same reactor.
  await stage.reactor.sleep(3 * OPTIONS.heartbeatMs, never);
  const waits = waitsOf(stage.reactor);
  assert.equal(await link.leave(), false);
  assert.deepEqual(waits, [], "a connection that has ended is not waited for");
  link.close();
  libc().close(output);
});
