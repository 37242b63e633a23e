import assert from "node:assert/strict";
import { StateError, WireError, type WireFault } from "../errors.ts";
import { TxnReceiver } from "./receiver.ts";
import { TxnSender } from "./sender.ts";
import { encodeHello } from "./hello.ts";
import { TXN } from "./wire.ts";

import { Desk, feed, frame, Link, OPTIONS, SESSION, wireFault } from "./testing/session_pair.ts";

const begin = frame({ command: TXN.BEGIN, transaction: 1, flags: 1 });
const commitEmpty = frame({ command: TXN.COMMIT, transaction: 1, sequence: 1 }, new Uint8Array(12));
const commitTwo = frame({ command: TXN.COMMIT, transaction: 2, sequence: 1 }, new Uint8Array(12));
const oldHandover = frame({ command: TXN.HANDOVER, transaction: 1 });
const event = frame({ command: TXN.EVENT, transaction: 1, sequence: 1 }, new Uint8Array(3));
const ack = frame({ command: TXN.ACK, transaction: 1 });
const ORDER: readonly (readonly [string, Uint8Array[][], WireFault, RegExp])[] = [
  [
    "a gap in the sequence",
    [
      begin,
      frame({ command: TXN.CONTINUE, transaction: 1, sequence: 2 }),
    ],
    "bad-order",
    /frame 2 .* awaited was frame 1/,
  ],
  [
    "a frame of another transaction",
    [
      begin,
      frame({ command: TXN.CONTINUE, transaction: 2, sequence: 1 }),
    ],
    "bad-order",
    /transaction 2, awaited/,
  ],
  [
    "a payload without BEGIN",
    [frame({ command: TXN.CONTINUE, transaction: 1 })],
    "bad-order",
    /CONTINUE while idle, where its place is in open/,
  ],
  ["a BEGIN in a transaction", [begin, begin], "bad-order", /BEGIN while open/],
  [
    "a BEGIN that skips one",
    [frame({ command: TXN.BEGIN, transaction: 2 })],
    "bad-order",
    /transaction 2, awaited was 1/,
  ],
  [
    "a transaction twice",
    [begin, commitEmpty, begin],
    "bad-order",
    /transaction 1, awaited was 2/,
  ],
  [
    "BASED without FULL",
    [frame({ command: TXN.BEGIN, transaction: 1, flags: 2 })],
    "bad-value",
    /BEGIN with flags 0x2/,
  ],
  [
    "a COMMIT that is too short",
    [begin, frame({ command: TXN.COMMIT, transaction: 1, sequence: 1 }, new Uint8Array(11))],
    "bad-length",
    /COMMIT of 11/,
  ],
  [
    "a HANDOVER of nothing",
    [frame({ command: TXN.HANDOVER })],
    "bad-value",
    /transaction 0, which is none/,
  ],
  [
    "a HANDOVER of what is not committed",
    [begin, frame({ command: TXN.HANDOVER, transaction: 1 })],
    "bad-order",
    /HANDOVER while open/,
  ],
  [
    "a HANDOVER of an old transaction",
    [begin, commitEmpty, frame({ command: TXN.BEGIN, transaction: 2 }), commitTwo, oldHandover],
    "bad-order",
    /HANDOVER of transaction 1, the last is 2/,
  ],
  [
    "a digest query in a transaction",
    [
      begin,
      frame({ command: TXN.DIGEST_QUERY }, new Uint8Array(8)),
    ],
    "bad-order",
    /DIGEST_QUERY/,
  ],
  [
    "a digest query without a seed",
    [frame({ command: TXN.DIGEST_QUERY }, new Uint8Array(7))],
    "bad-length",
    /DIGEST_QUERY of 7 bytes/,
  ],
  [
    "a LEAVE in a transaction",
    [begin, frame({ command: TXN.LEAVE })],
    "bad-order",
    /LEAVE while open/,
  ],
  ["an EVENT outside of a transaction", [event], "bad-order", /EVENT while idle/],
  [
    "an EVENT without a payload",
    [begin, frame({ command: TXN.EVENT, transaction: 1, sequence: 1 })],
    "bad-length",
    /EVENT of 0 bytes/,
  ],
  ["an ACK from a sender", [ack], "bad-order", /ACK, which no sender sends/],
];

for (const [of, frames, fault, message] of ORDER) {
  Deno.test(`the receiver refuses ${of}`, () => {
    const link = new Link();
    assert.throws(() => feed(link.receiver, ...frames), wireFault(fault, message));
  });
}

Deno.test("nothing behind LEAVE, or behind the answer to HANDOVER, is looked at", () => {
  const link = new Link();
  feed(link.receiver, begin, commitEmpty, oldHandover);
  feed(link.receiver, begin, frame({ command: 99 }, new Uint8Array(7)));
  assert.deepEqual(link.desk.log.slice(-2), ["commit 1: ", "handover 1"]);
  const left = new Link();
  feed(left.receiver, frame({ command: TXN.LEAVE }, Uint8Array.of(1)), begin);
  assert.equal(left.desk.log.at(-1), "leave vm-ended");
});

Deno.test("a receiver takes nothing before HELLO", () => {
  for (const each of [begin, frame({ command: TXN.CONTINUE }), frame({ command: TXN.HEARTBEAT })]) {
    const receiver = new TxnReceiver(OPTIONS, new Desk(), 0);
    assert.throws(() => feed(receiver, each), WireError);
  }
});

Deno.test("the sender refuses what no receiver says", () => {
  const hello = (change: Partial<Parameters<typeof encodeHello>[0]>) =>
    frame(
      { command: TXN.HELLO },
      encodeHello({
        ...OPTIONS,
        version: 1,
        features: 0,
        session: SESSION,
        ...change,
      }),
    );
  const cases: readonly (readonly [Uint8Array[][], WireFault, RegExp])[] = [
    [[frame({ command: TXN.ACK, transaction: 1 })], "bad-order", /before HELLO/],
    [[hello({ version: 3 })], "bad-version", /version 3/],
    [[hello({ session: new Uint8Array(16) })], "bad-value", /another session/],
    [[hello({}), hello({})], "bad-order", /HELLO while ready/],
    [[hello({}), frame({ command: TXN.ACK, transaction: 1 })], "bad-order", /awaited was none/],
    [[hello({}), begin], "bad-order", /BEGIN, which no receiver sends/],
    [[hello({}), frame({ command: TXN.CONTINUE, transaction: 1 })], "bad-order", /CONTINUE, which/],
  ];
  for (const [frames, fault, message] of cases) {
    const sender = new TxnSender({ ...OPTIONS, session: SESSION }, 0);
    assert.throws(() => feed(sender, ...frames), wireFault(fault, message));
  }
  const sender = new TxnSender({ ...OPTIONS, session: SESSION }, 0);
  feed(sender, hello({}));
  sender.begin("full");
  sender.commit(0);
  assert.throws(
    () => feed(sender, frame({ command: TXN.ACK, transaction: 2 })),
    wireFault("bad-order", /transaction 2, awaited was 1/),
  );
});

Deno.test("calls out of order are bugs of ours", () => {
  const link = new Link();
  assert.throws(() => link.sender.commit(0), StateError);
  assert.throws(() => link.sender.forward(new Uint8Array(1)), StateError);
  assert.throws(() => link.sender.cancel(), StateError);
  link.sender.begin("full");
  for (const act of ["begin", "handover", "queryDigests"] as const) {
    assert.throws(() => link.sender[act]("full" as never, 0), StateError);
  }
});

Deno.test("a sender begins no transaction that has no number", () => {
  const most = Number.MAX_SAFE_INTEGER;
  const senderAt = (committed: number) => {
    const sender = new TxnSender({ ...OPTIONS, session: SESSION }, 0);
    const hello = { ...OPTIONS, version: 1, features: 0, session: SESSION, committed };
    feed(sender, frame({ command: TXN.HELLO }, encodeHello(hello)));
    return sender;
  };
  const last = senderAt(most - 1);
  assert.equal(last.begin("full"), most);
  last.commit(0);
  for (const sender of [last, senderAt(most)]) {
    assert.throws(
      () => sender.begin("full"),
      wireFault("bad-value", /is the last that there can be/),
    );
    sender.leave({ reason: "goes-on", text: "" });
  }
});

Deno.test("a sender gives nothing away, and releases nothing, that is not acknowledged", () => {
  const { sender } = new Link();
  assert.throws(() => sender.handover(), StateError, "there is nothing");
  sender.begin("full");
  sender.commit(0);
  assert.throws(() => sender.handover(), StateError);
  assert.throws(() => sender.released(1), StateError);
  feed(sender, frame({ command: TXN.ACK, transaction: 1 }));
  sender.released(1);
  sender.handover();
});
