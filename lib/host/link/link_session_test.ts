/** Sessions between sender and receiver: strangers, refusals, silence, and coming back. */
import assert from "node:assert/strict";
import { TransportError, WireError } from "../../errors.ts";
import { concat, fullStream, u64 } from "../../qemu/testing/synthetic_stream.ts";
import { encodeHeader } from "../../txn/frame_header.ts";
import { NACK_REASON, TXN } from "../../txn/wire.ts";
import { libc } from "../system/libc.ts";
import { Stage, tinyStream, wireOf } from "./testing/link_stage.ts";
import { never } from "../system/never.ts";
import { connectionOver, socketConnection } from "./peer_connection.ts";
import { isTakenOver } from "../vm/release_vm.ts";
import { SenderLink } from "./sender_link.ts";
import { connectSocket } from "../system/socket.ts";
import { O_CLOEXEC, O_NONBLOCK } from "../system/linux.ts";

const FIRST = fullStream(1);
const SECOND = fullStream(40);
/** A HANDOVER is what a stream's wire ends with. */
const HANDOVER_BYTES = 20;
const LINK = {
  commit: "async",
  stream: "auto",
  maxInFlightBytes: 2 ** 26,
  heartbeatMs: 20,
  graceMs: 3000,
  software: "test",
} as const;

Deno.test("strangers are told what this is, and are no loss", async () => {
  for (const onLoss of ["wait", "exit", "activate"] as const) {
    await using stage = await Stage.open({ onLoss });
    const text = new TextEncoder();
    const http = await stage.speak(text.encode("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 20);
    assert.match(http, /does not speak kemari: a frame begins with 0x4745/);
    await stage.quiet();
    const hello = (await wireOf(FIRST)).subarray(0, 90);
    const version = hello.slice();
    version[20 + 11] = 9;
    const refused = await stage.speak(version, 20);
    assert.match(refused, /speaks version 9 of the protocol, this end version 1/);
    await stage.quiet();
    const huge = hello.slice(0, 20);
    huge.set([0xff, 0xff, 0xff, 0xff], 16);
    assert.match(await stage.speak(huge, 20), /HELLO of 4294967295 bytes; taken are 58 to 131072/);
    await stage.quiet();
    assert.equal(stage.receiver.state, "listening");
    // A sender is still welcome.
    await stage.send(FIRST);
  }
});

Deno.test("a list of blocks of 2^60 bytes is refused before anything is allocated", async () => {
  await using stage = await Stage.open();
  const at = FIRST.findIndex((_, i) =>
    FIRST[i] === 6 && FIRST[i + 1] === 0x70 && FIRST[i + 2] === 0x63
  );
  const lying = FIRST.slice();
  // MEM_SIZE's total, which stands before the first block's name.
  lying.set(u64(2n ** 60n | 4n), at - 8);
  await assert.rejects(stage.send(lying), (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, /announces 11529215046068\d+ bytes of RAM/);
    return error.fault === "too-large";
  });
  await stage.quiet();
  assert.equal(stage.receiver.replica.memoryBytes, 0);
});

Deno.test("a sender gives up before it sends more than the receiver takes", async () => {
  await using stage = await Stage.open({ maxTransactionBytes: 2048 });
  await assert.rejects(stage.send(FIRST), (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, /transaction 1 has more than the 2048 bytes of pages/);
    assert.match(error.hint!, /--max-transaction/);
    return error.fault === "too-large" && error.exitCode === 3;
  });
  await stage.quiet();
  assert.equal(stage.receiver.state, "listening");
});

Deno.test("one sender at a time: the second is told, the first is left alone", async () => {
  await using stage = await Stage.open();
  const first = await stage.greet();
  await stage.reactor.run(() => stage.receiver.session !== undefined, never);
  await assert.rejects(stage.send(FIRST), (error) => {
    assert.ok(error instanceof WireError, `${error}`);
    assert.match(error.message, /another sender is being served/);
    return error.exitCode === 3;
  });
  assert.equal(stage.receiver.state, "receiving");
  assert.equal(stage.receiver.senders, 1);
  libc().close(first);
  await stage.quiet();
  await stage.send(FIRST);
});

Deno.test("silence longer than the grace time is a loss, at both ends", async () => {
  await using stage = await Stage.open({ heartbeatMs: 20, graceMs: 80 });
  const silent = await stage.greet();
  await stage.reactor.run(() => stage.receiver.session !== undefined, never);
  await stage.quiet();
  libc().close(silent);
  // A receiver that accepts and says nothing: a listening socket that nobody serves.
  const path = `${stage.folder}/mute`;
  const mute = Deno.listen({ transport: "unix", path });
  try {
    const address = { kind: "unix", path, text: "mute" } as const;
    const fd = await connectSocket(address, stage.reactor, 1000, never);
    const link = new SenderLink(stage.reactor, socketConnection(fd, "mute"), {
      ...LINK,
      graceMs: 80,
    });
    await assert.rejects(stage.reactor.run(() => false, never), (error) => {
      assert.ok(error instanceof TransportError && error.phase === "heartbeat", `${error}`);
      return /nothing was heard from the secondary/.test(error.message);
    });
    link.close();
  } finally {
    mute.close();
  }
});

Deno.test("a second session builds on the replica: equal pages are not sent again", async () => {
  await using stage = await Stage.open();
  const first = await stage.send(FIRST);
  stage.receiver.resume();
  const again = await stage.send(FIRST);
  assert.ok(again.primary.counters.unchangedPages >= 7);
  assert.ok(again.wireBytes < first.wireBytes / 2, `${again.wireBytes} of ${first.wireBytes}`);
  assert.equal(stage.receiver.replica.committed, 2);
});

Deno.test("a sender that comes back and dies before its first commit leaves a state of the past", async () => {
  await using stage = await Stage.open({ onLoss: "activate" });
  await stage.send(FIRST);
  stage.receiver.resume();
  const wire = await wireOf(SECOND);
  // HELLO and a little more.
  const fd = await stage.connect();
  libc().write(fd, wire as Uint8Array<ArrayBuffer>, 90n);
  await stage.reactor.run(() => stage.receiver.session?.secondary.peer !== undefined, never);
  assert.throws(() => stage.receiver.failover(), /is of an earlier session/);
  libc().close(fd);
  await stage.quiet();
  assert.equal(stage.receiver.state, "waiting", "not by itself");
  assert.equal(stage.receiver.replica.committed, 1);
  assert.throws(() => stage.receiver.failover(), /not the VM's last state: .* gone on since/);
  stage.receiver.failover(true);
  assert.equal(
    await stage.receiver.receive(never),
    "failover",
    "but if it is told to, knowing that",
  );
});

Deno.test("a failover during a refusal's last words is not called off by them", async () => {
  await using stage = await Stage.open({ onLoss: "exit" });
  const wire = await wireOf(SECOND);
  await stage.send(FIRST);
  stage.receiver.resume();
  const fd = await stage.connect();
  const damaged = concat(wire.subarray(0, 20 + 58 + 4), "this is no frame at all");
  libc().write(fd, damaged as Uint8Array<ArrayBuffer>, BigInt(damaged.length));
  await stage.reactor.run(() => stage.receiver.session !== undefined, never);
  await stage.reactor.sleep(50, never);
  stage.receiver.failover();
  assert.equal(await stage.receiver.receive(never), "failover");
  // The session's linger time passes: nothing more comes of it.
  await stage.reactor.sleep(1200, never);
  assert.equal(stage.receiver.state, "activating");
  libc().close(fd);
});

Deno.test("a connection that says nothing holds no place, and one that was refused makes way", async () => {
  await using stage = await Stage.open({ graceMs: 60_000 });
  const silent = await stage.connect();
  await stage.send(tinyStream(1));
  stage.receiver.resume();
  libc().close(silent);
  // This one keeps its connection open, though it has been refused.
  const refused = await stage.greet();
  libc().write(refused, new TextEncoder().encode("GET / HTTP/1.1\r\n"), 16n);
  await stage.reactor.run(() => stage.receiver.session?.refused === true, never);
  await stage.send(tinyStream(2));
  libc().close(refused);
  assert.equal(stage.receiver.replica.committed, 2);
});

Deno.test("a peer that refuses and goes before HELLO is written: its reason is the error", async () => {
  await using stage = await Stage.open();
  const [up, down] = [new Int32Array(2), new Int32Array(2)];
  for (const pipe of [up, down]) libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK | O_CLOEXEC);
  const text = new TextEncoder().encode("no room here");
  const nack = concat(
    encodeHeader({
      command: TXN.NACK,
      flags: 0,
      sequence: 0,
      transaction: 0,
      lengthBytes: 2 + text.length,
    }),
    [0, NACK_REASON.internal],
    text,
  );
  libc().write(up[1], nack as Uint8Array<ArrayBuffer>, BigInt(nack.length));
  for (const fd of [up[1], down[0]]) libc().close(fd);
  let closed = 0;
  const peer = { input: up[0], output: down[1], name: "pipes", isSocket: false };
  const close = () => {
    closed++;
    for (const fd of [up[0], down[1]]) libc().close(fd);
  };
  assert.throws(
    () => new SenderLink(stage.reactor, connectionOver({ ...peer, close }), LINK),
    (error) => error instanceof WireError && /no room here/.test(error.message),
  );
  assert.equal(closed, 1);
  // Nothing of it is left on the loop.
  await stage.reactor.sleep(100, never);
});

Deno.test("what goes wrong with the secondary when the VM runs again is the loop's, not QMP's", async () => {
  await using stage = await Stage.open();
  const path = `${stage.folder}/dying`;
  using _listener = Deno.listen({ transport: "unix", path });
  const address = { kind: "unix", path, text: "dying" } as const;
  const fd = await connectSocket(address, stage.reactor, 1000, never);
  const link = new SenderLink(stage.reactor, socketConnection(fd, "dying"), LINK);
  const broken = new TransportError("dying", "write", "broken pipe");
  const { dialogue } = link.primary;
  const resumed = [true, false];
  dialogue.vmResumed = () => resumed.shift()!;
  link.primary.takeOutput = () => {
    throw broken;
  };
  link.vmResumed();
  await assert.rejects(stage.reactor.run(() => false, never), broken);
  // With nothing to be said to QEMU, there is nothing to be written.
  let pumped = 0;
  link.primary.takeOutput = () => {
    pumped++;
    return [];
  };
  link.vmResumed();
  assert.equal(pumped, 0);
  link.close();
});

Deno.test("failover with a sender there: it is told, and activation waits for its end", async () => {
  await using stage = await Stage.open();
  const link = new SenderLink(
    stage.reactor,
    socketConnection(await stage.connect(), "the socket"),
    LINK,
  );
  // A QEMU that has sent a whole stream, and goes on.
  const pipe = new Int32Array(2);
  libc().pipe2(new Uint8Array(pipe.buffer), O_NONBLOCK);
  assert.equal(
    Number(libc().write(pipe[1], FIRST as Uint8Array<ArrayBuffer>, BigInt(FIRST.length))),
    FIRST.length,
  );
  link.attach({ input: pipe[0], output: -1, name: "QEMU" });
  await stage.reactor.run(() => stage.receiver.replica.committed === 1, never);
  stage.receiver.failover();
  stage.receiver.failover();
  assert.notEqual(stage.receiver.state, "activating");
  await assert.rejects(stage.reactor.run(() => false, never), (error) => {
    assert.ok(error instanceof WireError && error.fault === "taken-over", `${error}`);
    assert.match(error.hint!, /must not run here any more/);
    return isTakenOver(error);
  });
  // This is where a sender stops its VM.
  link.quiesce();
  await stage.reactor.sleep(100, never);
  assert.equal(stage.receiver.state, "receiving");
  link.close();
  for (const fd of pipe) libc().close(fd);
  assert.equal(await stage.receiver.receive(never), "failover");
});

Deno.test("failover does not wait long for a sender that does not answer, nor for a fenced one", async () => {
  for (const fenced of [false, true]) {
    await using stage = await Stage.open({ fenced, yieldMs: 100 });
    const wire = (await wireOf(FIRST)).subarray(0, -HANDOVER_BYTES) as Uint8Array<ArrayBuffer>;
    const fd = await stage.connect();
    libc().write(fd, wire, BigInt(wire.length));
    await stage.reactor.run(() => stage.receiver.replica.committed === 1, never);
    stage.receiver.failover();
    assert.equal(stage.receiver.state, fenced ? "activating" : "receiving");
    assert.equal(await stage.receiver.receive(never), "failover");
    libc().close(fd);
  }
});

for (const transport of ["socket", "pipes"] as const) {
  Deno.test(`${transport}: a sender that stops its VM is waited for, whoever else comes meanwhile`, async () => {
    const wire = (await wireOf(FIRST)).subarray(0, -HANDOVER_BYTES) as Uint8Array<ArrayBuffer>;
    // Like `exec:ssh …`: no socket, and nothing else can come.
    const script = `cat "$0" && until [ -e "$0.stopped" ]; do sleep 0.02; done`;
    const folder = await Deno.makeTempDir({ prefix: "kemari-yield-" });
    const file = `${folder}/wire`;
    Deno.writeFileSync(file, wire);
    const command = `exec sh -c '${script}' ${file}`;
    const isSocket = transport === "socket";
    await using stage = await Stage.open(
      isSocket ? {} : { listen: { kind: "exec", command, text: "exec:" } },
    );
    const sender = isSocket ? await stage.connect() : -1;
    if (isSocket) libc().write(sender, wire, BigInt(wire.length));
    await stage.reactor.run(() => stage.receiver.replica.committed === 1, never);
    stage.receiver.failover();
    // The old limit, in which COLO's end may have let a VM run that is to be stopped.
    for (let i = 0; i < 3; i++) {
      const prober = isSocket ? await stage.connect() : -1;
      await stage.reactor.sleep(500, never);
      if (isSocket) libc().close(prober);
      assert.equal(stage.receiver.state, "receiving");
    }
    if (isSocket) libc().close(sender);
    else Deno.writeFileSync(`${file}.stopped`, new Uint8Array());
    assert.equal(await stage.receiver.receive(never), "failover");
    await Deno.remove(folder, { recursive: true });
  });
}

for (const isSuspended of [false, true]) {
  const what = isSuspended ? "of a secondary that was suspended proves" : "proves";
  const name = isSuspended ? "no death, and starts no VM" : "a death";
  Deno.test(`a connection's end ${what} ${name}`, async () => {
    let asleepMs = 0;
    const bootTimeMs = () => performance.now() + asleepMs;
    await using stage = await Stage.open({ onLoss: "activate", bootTimeMs });
    const wire = (await wireOf(FIRST)).subarray(0, -HANDOVER_BYTES) as Uint8Array<ArrayBuffer>;
    const fd = await stage.connect();
    libc().write(fd, wire, BigInt(wire.length));
    await stage.reactor.run(() => stage.receiver.replica.committed === 1, never);
    // The other clocks stand still meanwhile: nothing looks as if it had been silent.
    if (isSuspended) asleepMs = 60_000;
    libc().close(fd);
    await stage.quiet();
    assert.equal(stage.receiver.state, isSuspended ? "waiting" : "activating");
  });
}

Deno.test("a primary that was suspended has been silent towards its secondary", async () => {
  let asleepMs = 0;
  await using stage = await Stage.open();
  const link = new SenderLink(
    stage.reactor,
    socketConnection(await stage.connect(), "the socket"),
    { ...LINK, graceMs: 2000, bootTimeMs: () => performance.now() + asleepMs },
  );
  await stage.reactor.run(() => link.ready, never);
  assert.ok(!link.stoodStill);
  asleepMs = 60_000;
  assert.ok(link.stoodStill, "before its first look at the clock");
  await stage.reactor.sleep(100, never);
  assert.ok(link.stoodStill, "and behind it");
  link.close();
});

Deno.test("whoever comes during an activation may come again, after it the VM is gone", async () => {
  await using stage = await Stage.open();
  await stage.send(FIRST);
  const fault = (wanted: string) => (error: unknown) =>
    error instanceof WireError && error.fault === wanted;
  await assert.rejects(stage.send(FIRST), fault("activating"));
  stage.receiver.activated();
  await assert.rejects(stage.send(FIRST), fault("taken-over"));
});

Deno.test("a sender that is refused is no loss: its VM lives, and is not activated here", async () => {
  await using stage = await Stage.open({ onLoss: "activate" });
  const wire = await wireOf(SECOND);
  await stage.send(FIRST);
  stage.receiver.resume();
  const damaged = concat(wire.subarray(0, 20 + 58 + 4), "this is no frame at all");
  assert.match(await stage.speak(damaged, 100), /a frame begins with 0x7468/);
  await stage.quiet();
  assert.equal(stage.receiver.state, "waiting");
  assert.match(stage.receiver.lastLoss!, /does not speak kemari/);
});

Deno.test("a sender that goes without a word, behind a commit of its own, is a loss", async () => {
  await using stage = await Stage.open({ onLoss: "activate" });
  const wire = await wireOf(SECOND);
  await stage.speak(wire.subarray(0, -HANDOVER_BYTES), 100);
  assert.equal(await stage.receiver.receive(never), "loss");
  assert.equal(stage.receiver.replica.committed, 1);
});
