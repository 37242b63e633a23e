/** HANDOVER, LEAVE and their answers are the last of a session: nothing behind them undoes them. */
import assert from "node:assert/strict";
import { WireError } from "../errors.ts";
import { encodeHello } from "./hello.ts";
import { encodeRefusal } from "./refusal.ts";
import type { TxnReceiver } from "./receiver.ts";
import { TxnSender } from "./sender.ts";
import type { SenderEvent } from "./sender_config.ts";
import { TXN } from "./wire.ts";
import { feed, frame, Link, OPTIONS, SESSION, wireFault } from "./testing/session_pair.ts";

const GARBAGE = new TextEncoder().encode("no frame at all, and longer than any header is");

/** What may stand behind a sender's last frame, in the same read. */
const BEHIND: readonly (readonly [string, Uint8Array])[] = [
  ["nothing", new Uint8Array(0)],
  ["one byte", Uint8Array.of(0)],
  ["garbage", GARBAGE],
  ["half a header", joined(frame({ command: TXN.HEARTBEAT })).subarray(0, 11)],
  ["a BEGIN", joined(frame({ command: TXN.BEGIN, transaction: 2, flags: 1 }))],
  ["an EVENT that is cut", joined(frame({ command: TXN.EVENT, lengthBytes: 1000 }))],
  ["a LEAVE", joined(frame({ command: TXN.LEAVE }, Uint8Array.of(0)))],
  ["a HANDOVER", joined(frame({ command: TXN.HANDOVER, transaction: 1 }))],
  ["a DISK_QUERY", joined(frame({ command: TXN.DISK_QUERY }, new Uint8Array(30)))],
  ["a HELLO", joined(frame({ command: TXN.HELLO }, GARBAGE))],
  ["a frame of another version", joined(frame({ command: 99 }))],
];

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(pieces.flatMap((piece) => [...piece]));
}

const begin = frame({ command: TXN.BEGIN, transaction: 1, flags: 1 });
const commit = frame({ command: TXN.COMMIT, transaction: 1, sequence: 1 }, new Uint8Array(12));
const handover = frame({ command: TXN.HANDOVER, transaction: 1 });

/** A receiver that has committed a transaction. @param answers Whether HANDOVER is answered at once. */
function receiverOf(answers = true): Link {
  const link = new Link();
  feed(link.receiver, begin, commit);
  link.receiver.takeOutput();
  link.desk.log.length = 0;
  link.desk.answers = answers;
  return link;
}

/** Commands of the frames in what an end says; all of them without a payload. */
function commandsOf(receiver: TxnReceiver): number[] {
  return receiver.takeOutput().map((header) => header[2]);
}

for (const [what, bytes] of BEHIND) {
  Deno.test(`the receiver acknowledges a HANDOVER, and says no more, with ${what} behind it`, () => {
    for (const isOneRead of [true, false]) {
      const { receiver, desk } = receiverOf();
      const all = isOneRead ? [joined([...handover, bytes])] : [joined(handover), bytes];
      for (const read of all) assert.equal(receiver.receive(read, 0, read.length, 0), read.length);
      assert.deepEqual(desk.log, ["handover 1"]);
      assert.deepEqual(commandsOf(receiver), [TXN.ACK]);
      assert.equal(receiver.tick(1e6), 0, "nor is the sender missed");
      assert.deepEqual(commandsOf(receiver), []);
    }
  });

  Deno.test(`the same of one that is answered later: ${what} neither hastens nor undoes it`, () => {
    const { receiver, desk } = receiverOf(false);
    const read = joined([...handover, bytes]);
    assert.equal(receiver.receive(read, 0, read.length, 0), read.length);
    assert.deepEqual(desk.log, ["handover 1"]);
    assert.ok(receiver.handingOver);
    receiver.tick(OPTIONS.heartbeatMs);
    assert.deepEqual(commandsOf(receiver), [TXN.HEARTBEAT], "the sender must know that we live");
    assert.ok(receiver.tick(OPTIONS.graceMs + 1) > 0, "its silence is a loss until the ACK");
    receiver.takeOutput();
    receiver.ack(1);
    assert.ok(!receiver.handingOver);
    assert.deepEqual(commandsOf(receiver), [TXN.ACK]);
  });

  Deno.test(`the receiver answers a LEAVE by LEFT, and says no more, with ${what} behind it`, () => {
    const { receiver, desk } = receiverOf();
    const read = joined([...frame({ command: TXN.LEAVE }, Uint8Array.of(0)), bytes]);
    assert.equal(receiver.receive(read, 0, read.length, 0), read.length);
    assert.deepEqual(desk.log, ["leave goes-on"]);
    assert.deepEqual(commandsOf(receiver), [TXN.LEFT]);
  });
}

/** A sender whose transaction 1 is acknowledged. */
function senderOf(): TxnSender {
  const sender = new TxnSender({ ...OPTIONS, session: SESSION }, 0);
  const answer = { ...OPTIONS, version: 1, features: 0x3f, session: SESSION };
  feed(sender, frame({ command: TXN.HELLO }, encodeHello(answer)));
  sender.begin("full");
  sender.commit(0);
  feed(sender, frame({ command: TXN.ACK, transaction: 1 }));
  sender.takeEvents();
  sender.takeOutput();
  return sender;
}

const NACK = joined(frame({ command: TXN.NACK }, encodeRefusal("taken-over", "ours")));
const ACK = joined(frame({ command: TXN.ACK, transaction: 9 }));
const ENDS: readonly (readonly [string, (sender: TxnSender) => void, number, SenderEvent])[] = [
  ["a handover", (sender) => sender.handover(), TXN.ACK, { kind: "handed-over" }],
  [
    "a farewell",
    (sender) => sender.leave({ reason: "goes-on", text: "" }),
    TXN.LEFT,
    { kind: "left" },
  ],
];
for (const [of, act, answer, event] of ENDS) {
  Deno.test(`nothing behind the answer to ${of} undoes it`, () => {
    for (const [what, bytes] of [...BEHIND, ["a NACK", NACK], ["an ACK", ACK]] as const) {
      const sender = senderOf();
      act(sender);
      sender.takeOutput();
      const transaction = answer === TXN.ACK ? 1 : 0;
      const read = joined([...frame({ command: answer, transaction }), bytes]);
      assert.equal(sender.receive(read, 0, read.length, 0), read.length, what);
      assert.equal(sender.receive(GARBAGE, 0, GARBAGE.length, 0), GARBAGE.length);
      sender.tick(1e6);
      sender.released(1);
      assert.deepEqual(sender.takeEvents(), [event], what);
      assert.deepEqual(sender.takeOutput(), [], what);
      assert.ok(sender.isOver && !sender.handingOver);
    }
  });
}

Deno.test("a HANDOVER that is refused leaves nobody in doubt, one that is answered by garbage does", () => {
  const refused = senderOf();
  refused.handover();
  assert.ok(refused.handingOver);
  assert.throws(
    () => feed(refused, frame({ command: TXN.NACK }, encodeRefusal("storage", "no room"))),
    wireFault("storage", /no room/),
  );
  assert.ok(!refused.handingOver && refused.isOver && !refused.ready && !refused.mayLeave);
  const doubtful = senderOf();
  doubtful.handover();
  assert.throws(() => doubtful.receive(GARBAGE, 0, GARBAGE.length, 0), WireError);
  assert.ok(doubtful.handingOver);
});

Deno.test("a sender that is refused says no farewell: nobody looks at it any more", () => {
  for (const isOpen of [false, true]) {
    const sender = senderOf();
    if (isOpen) sender.begin("checkpoint");
    assert.ok(sender.mayLeave);
    assert.throws(
      () => feed(sender, frame({ command: TXN.NACK }, encodeRefusal("stopping", "ending"))),
      wireFault("stopping", /ending/),
    );
    assert.ok(!sender.mayLeave && sender.isOver);
    assert.equal(sender.receive(GARBAGE, 0, GARBAGE.length, 0), GARBAGE.length, "nor hears more");
    sender.tick(1e6);
    assert.deepEqual(sender.takeEvents(), []);
  }
});

Deno.test("a HANDOVER of an earlier session's transaction is refused: that VM has run since", () => {
  const link = new Link(0, { committed: 7 });
  assert.throws(
    () => feed(link.receiver, frame({ command: TXN.HANDOVER, transaction: 7 })),
    wireFault("bad-order", /HANDOVER of transaction 7, of an earlier session/),
  );
});
