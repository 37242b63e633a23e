import assert from "node:assert/strict";
import { StateError, WireError } from "../errors.ts";
import { TxnReceiver } from "./receiver.ts";
import { TxnSender } from "./sender.ts";
import { MAX_DISK_QUERIES, MAX_PAYLOAD_BYTES, NACK_REASON, type NackReason, TXN } from "./wire.ts";

import { Desk, feed, frame, Link, OPTIONS, SESSION, wireFault } from "./testing/session_pair.ts";

Deno.test("transactions arrive in order, are acknowledged, and take two delays to be", () => {
  const link = new Link(20);
  assert.equal(link.sender.ready, false);
  link.pass(41);
  assert.equal(link.sender.ready, true);
  assert.deepEqual(link.events.map(({ kind }) => kind), ["ready"]);
  link.sender.begin("full");
  link.sender.forward(Uint8Array.of(1, 2));
  link.sender.forward(Uint8Array.of(3));
  link.sender.commit(link.now);
  link.sender.begin("checkpoint");
  link.sender.cancel();
  link.sender.begin("full-on-replica");
  link.sender.forward(Uint8Array.of(4));
  link.sender.commit(link.now);
  assert.deepEqual(link.sender.inFlight.map(({ transaction, bytes }) => [transaction, bytes]), [
    [1, 3],
    [2, 1],
  ]);
  link.settle();
  link.pass(40);
  assert.deepEqual(link.desk.log, [
    "hello",
    "begin 1 full",
    "commit 1: 1,2,3",
    "begin 2",
    "cancel 2",
    "begin 2 full based",
    "commit 2: 4",
  ]);
  assert.deepEqual(link.events.slice(1), [
    { kind: "acked", transaction: 1, roundTripMs: 40 },
    { kind: "acked", transaction: 2, roundTripMs: 40 },
  ]);
  link.sender.handover();
  link.settle();
  link.pass(40);
  assert.equal(link.desk.log.at(-1), "handover 2");
  assert.equal(link.events.at(-1)?.kind, "handed-over");
});

Deno.test("a payload longer than a frame goes in several and arrives whole", () => {
  const link = new Link();
  const long = new Uint8Array(2 * MAX_PAYLOAD_BYTES + 5).map((_, i) => i * 3);
  let sum = 0;
  link.desk.payload = (bytes, at, end) => {
    for (let i = at; i < end; i++) sum += bytes[i];
  };
  link.sender.begin("full");
  link.sender.forward(long);
  link.sender.commit(0);
  link.settle();
  assert.equal(sum, long.reduce((a, b) => a + b, 0));
  assert.equal(link.events.at(-1)?.kind, "acked");
});

Deno.test("heartbeats keep an idle link alive; without them it is lost on both sides", () => {
  const link = new Link(30);
  link.pass(60);
  assert.equal(link.pass(3000), 0);
  assert.deepEqual(link.events.map(({ kind }) => kind), ["ready"]);
  link.up = false;
  const silent = link.pass(1000);
  assert.ok(silent > 500 && silent <= 1030, `${silent}`);
  const lost = link.events.filter(({ kind }) => kind === "lost");
  assert.equal(lost.length, 1, "it is said once");
  assert.ok(lost[0].kind === "lost" && lost[0].silentMs === 501);
});

Deno.test("a peer that never says HELLO is lost too", () => {
  const sender = new TxnSender({ ...OPTIONS, session: SESSION }, 1000);
  sender.tick(1400);
  assert.deepEqual(sender.takeEvents(), []);
  sender.tick(1501);
  assert.deepEqual(sender.takeEvents(), [{ kind: "lost", silentMs: 501 }]);
  const receiver = new TxnReceiver(OPTIONS, new Desk(), 1000);
  assert.equal(receiver.tick(1500), 0);
  assert.equal(receiver.tick(1501), 501);
});

Deno.test("a session goes on from what the replica has committed", () => {
  const link = new Link(0, { committed: 41 });
  assert.equal(link.sender.begin("full-on-replica"), 42);
  link.sender.commit(0);
  link.settle();
  assert.equal(link.desk.log.at(-1), "commit 42: ");
});

Deno.test("digests are asked for and answered in parts; unasked, they are refused", () => {
  const link = new Link();
  link.sender.queryDigests(0xffffffff, 7);
  link.settle();
  assert.equal(link.desk.log.at(-1), "digests 4294967295 7");
  link.receiver.digests(Uint8Array.of(1), false);
  link.receiver.digests(new Uint8Array(0), true);
  link.settle();
  assert.deepEqual(link.events.slice(1), [
    { kind: "digests", payload: Uint8Array.of(1), last: false },
    { kind: "digests", payload: new Uint8Array(0), last: true },
  ]);
  link.receiver.digests(Uint8Array.of(1), false);
  assert.throws(() => link.settle(), wireFault("bad-order", /DIGEST while ready/));
});

Deno.test("disks are asked about at any time, some at once, and answered in order", () => {
  const link = new Link();
  link.sender.queryDisk(new Uint8Array(30).fill(1));
  link.sender.begin("full");
  link.sender.queryDisk(new Uint8Array(30).fill(2));
  link.sender.forward(Uint8Array.of(3));
  link.sender.commit(0);
  link.settle();
  assert.deepEqual(link.desk.log.slice(1), [
    `disk query ${new Uint8Array(30).fill(1)}`,
    "begin 1 full",
    `disk query ${new Uint8Array(30).fill(2)}`,
    "commit 1: 3",
  ]);
  link.receiver.diskDigests(new Uint8Array(16).fill(4), false);
  link.receiver.diskDigests(new Uint8Array(16).fill(5), true);
  link.receiver.diskDigests(new Uint8Array(16).fill(6), true);
  link.settle();
  assert.deepEqual(link.events.slice(2), [
    { kind: "disk-digests", payload: new Uint8Array(16).fill(4), last: false },
    { kind: "disk-digests", payload: new Uint8Array(16).fill(5), last: true },
    { kind: "disk-digests", payload: new Uint8Array(16).fill(6), last: true },
  ]);
  link.receiver.diskDigests(new Uint8Array(16).fill(7), true);
  assert.throws(() => link.settle(), wireFault("bad-order", /not asked for/));
});

Deno.test("what the world sends travels at any time, to a receiver that takes it", () => {
  const link = new Link(0, { takesInputs: true });
  link.sender.input(1, [Uint8Array.of(1), new Uint8Array(15).fill(2)]);
  link.sender.begin("full");
  link.sender.forward(Uint8Array.of(4));
  link.sender.input(2, [new Uint8Array(16).fill(5)]);
  link.sender.commit(0);
  link.settle();
  assert.deepEqual(link.desk.log.slice(1), [
    `input for 1: 1,${new Uint8Array(15).fill(2)}`,
    "begin 1 full",
    `input for 2: ${new Uint8Array(16).fill(5)}`,
    "commit 1: 4",
  ]);
  link.sender.handover();
  assert.equal(link.sender.takesInputs, false, "the VM is given away");
});

Deno.test("a receiver without a use for what the world sends is not sent it, and refuses it", () => {
  const link = new Link();
  link.settle();
  assert.equal(link.sender.takesInputs, false);
  assert.throws(() => link.sender.input(1, [Uint8Array.of(1)]), StateError);
  const input = frame({ command: TXN.INPUT, transaction: 1 }, new Uint8Array(16));
  assert.throws(() => feed(link.receiver, input), wireFault("bad-order", /inputs was not offered/));
});

Deno.test("more questions about disks than may wait are not asked, and refused", () => {
  const link = new Link();
  for (let i = 0; i < MAX_DISK_QUERIES; i++) {
    assert.equal(link.sender.mayQueryDisk, true);
    link.sender.queryDisk(new Uint8Array(30));
  }
  assert.equal(link.sender.mayQueryDisk, false);
  link.settle();
  const more = frame({ command: TXN.DISK_QUERY }, new Uint8Array(30));
  assert.throws(() => feed(link.receiver, more), wireFault("bad-order", /more than 8 queries/));
});

Deno.test("a refusal reaches the sender with its reason and text", () => {
  for (const reason of Object.keys(NACK_REASON) as NackReason[]) {
    const link = new Link();
    link.sender.begin("full");
    link.receiver.nack(1, reason, "the replica says no");
    const fault = [
      ...["busy", "taken-over", "storage", "silence", "activating", "stopping"] as const,
      ...["other-vm", "same-image"] as const,
    ].find((name) => name === reason) ?? "refused";
    assert.throws(() => link.settle(), wireFault(fault, /transaction 1: the replica says no/));
  }
  const link = new Link();
  link.receiver.nack(0, "busy", "");
  assert.throws(() => link.settle(), wireFault("busy", /refused the connection: busy/));
  const wordy = new Link();
  wordy.receiver.nack(0, "too-large", "x".repeat(9999));
  assert.throws(() => wordy.settle(), (error) => {
    assert.ok(error instanceof WireError && error.message.length < 4300);
    assert.match(error.hint!, /--max-transaction/);
    return true;
  });
});

Deno.test("a damaged transaction is not committed", () => {
  const frames = [
    frame({ command: TXN.BEGIN, transaction: 1, flags: 1 }),
    frame({ command: TXN.CONTINUE, transaction: 1, sequence: 1 }, Uint8Array.of(1, 2, 3)),
  ];
  const commit = (crc: number, bytes: number) => {
    const payload = new Uint8Array(12);
    new DataView(payload.buffer).setUint32(0, crc);
    new DataView(payload.buffer).setBigUint64(4, BigInt(bytes));
    return frame({ command: TXN.COMMIT, transaction: 1, sequence: 2 }, payload);
  };
  const right = 0x55bc801d; // CRC-32 of 01 02 03
  for (let bit = 0; bit < 32; bit++) {
    const link = new Link();
    feed(link.receiver, ...frames);
    assert.throws(
      () => feed(link.receiver, commit((right ^ 1 << bit) >>> 0, 3)),
      wireFault("bad-checksum", /damaged/),
    );
    assert.ok(!link.desk.log.some((line) => line.startsWith("commit")));
  }
  const link = new Link();
  feed(link.receiver, ...frames);
  assert.throws(() => feed(link.receiver, commit(right, 4)), wireFault("bad-checksum", /3 of 4/));
  const whole = new Link();
  feed(whole.receiver, ...frames, commit(right, 3));
  assert.equal(whole.desk.log.at(-1), "commit 1: 1,2,3");
});

Deno.test("a sender that leaves cancels what is open, and says nothing more", () => {
  const link = new Link();
  link.sender.begin("full");
  link.sender.forward(Uint8Array.of(1));
  link.sender.commit(0);
  link.settle();
  link.sender.begin("checkpoint");
  link.sender.forward(Uint8Array.of(2));
  link.sender.leave({ reason: "vm-ended", text: "guest-shutdown" });
  link.sender.released(1);
  link.settle();
  assert.deepEqual(link.desk.log.slice(-3), [
    ...["begin 2", "cancel 2", "leave vm-ended guest-shutdown"],
  ]);
  assert.deepEqual(link.events.at(-1), { kind: "left" });
  assert.throws(() => link.sender.begin("checkpoint"), /begin while done/);
  link.pass(10_000);
  assert.ok(!link.events.some(({ kind }) => kind === "lost"), "nobody is missed");
});

Deno.test("a sender whose words are not written yet adds no heartbeat to them", () => {
  const link = new Link();
  for (let ms = 100; ms < 2000; ms += 100) link.sender.tick(link.now + ms, true);
  assert.deepEqual(link.sender.takeOutput(), []);
  link.sender.tick(link.now + 2000);
  const [heartbeat] = link.sender.takeOutput();
  assert.equal(heartbeat[2], TXN.HEARTBEAT);
});
