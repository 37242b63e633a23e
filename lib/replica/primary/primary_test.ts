import assert from "node:assert/strict";
import { loadAnswers, loadStream, streamInfo } from "../../lab/recording/streams.ts";
import { TransportError, WireError } from "../../errors.ts";
import {
  checkpoint,
  checkpointBody,
  command,
  concat,
  configuration,
  fullStream,
  HEADER,
  OPEN_RETURN_PATH,
  page,
  PING,
  REQUEST,
  SEND,
  xbzrle,
  zero,
} from "../../qemu/testing/synthetic_stream.ts";
import { COMMAND } from "../../qemu/wire.ts";
import { composed, LoadedVm, Loopback } from "../testing/loopback.ts";

const PONG = "0002000400000007";
const SHUT = "0001000400000000";
const READY = "00000000";
const REPLY = "00000002";
const RECEIVED = "00000005";
const LOADED = "00000006";

const RETURN_PATH = [OPEN_RETURN_PATH, PING];
const COLO_STREAM = fullStream(1, [command(COMMAND.MIG_CMD_ENABLE_COLO), ...RETURN_PATH]);
const PLAIN_WITH_RETURN_PATH = fullStream(1, RETURN_PATH);

for (const name of ["colo-7.2", "colo-10.0", "colo-11.1-idle", "colo-11.1-dirty"]) {
  Deno.test(`QEMU's own turns are answered byte for byte: ${name}`, async () => {
    const stream = loadStream(name);
    const answers = loadAnswers(name);
    const link = await Loopback.open();
    let said = 0;
    let heard = 0;
    let waited = 0;
    let replies = "";
    for (const { from, lengthBytes } of streamInfo(name).turns!) {
      if (from === "qemu") {
        link.feed(stream.slice(said, said += lengthBytes));
        continue;
      }
      const expected = answers.slice(heard, heard += lengthBytes).toHex();
      replies += link.takeReplies().replaceAll(" ", "");
      if (replies.length < expected.length) {
        // Only the wait for a plain stream's end may take time.
        link.now += 250;
        waited++;
        link.tick();
        replies += link.takeReplies().replaceAll(" ", "");
      }
      assert.equal(replies.slice(0, expected.length), expected);
      replies = replies.slice(expected.length);
    }
    assert.equal(said, stream.length);
    assert.ok(waited <= 1);
    assert.equal(link.replica.committed, 1 + streamInfo(name).checkpoints!);
  });
}

Deno.test("async: QEMU goes on as soon as its checkpoint has been read", async () => {
  const link = await Loopback.open({ holdAnswers: true });
  link.feed(COLO_STREAM);
  assert.equal(link.takeReplies(), PONG);
  link.answer();
  assert.equal(link.takeReplies(), `${SHUT} ${READY}`);
  link.feed(REQUEST);
  assert.equal(link.takeReplies(), REPLY);
  link.feed(concat(SEND, checkpointBody(2).subarray(0, -1)));
  assert.equal(link.takeReplies(), "", "nothing before the last byte");
  link.now += 3;
  link.feed(checkpointBody(2).subarray(-1));
  assert.equal(link.takeReplies(), `${RECEIVED} ${LOADED}`);
  assert.equal(link.primary.pause.summary().max, 3);
  assert.equal(link.primary.counters.committed, 1);
  link.feed(REQUEST);
  assert.equal(link.takeReplies(), REPLY, "the next one may begin before the ACK");
  link.answer();
  assert.equal(link.primary.counters.committed, 2);
});

Deno.test("sync: QEMU goes on when the secondary has the checkpoint", async () => {
  const link = await Loopback.open({ commit: "sync", holdAnswers: true });
  link.feed(COLO_STREAM);
  link.answer();
  link.takeReplies();
  link.feed(checkpoint(2));
  assert.equal(link.takeReplies(), `${REPLY} ${RECEIVED}`);
  link.now += 7;
  link.answer();
  assert.equal(link.takeReplies(), LOADED);
  assert.equal(link.primary.pause.summary().max, 7);
});

Deno.test("a checkpoint waits while too much is on its way, and never when nothing is", async () => {
  const link = await Loopback.open({ holdAnswers: true, maxInFlightBytes: 0 });
  link.feed(COLO_STREAM);
  link.answer();
  link.feed(REQUEST);
  assert.equal(link.takeReplies(), `${PONG} ${SHUT} ${READY} ${REPLY}`);
  link.feed(concat(SEND, checkpointBody(2)));
  link.feed(REQUEST);
  assert.equal(link.takeReplies(), `${RECEIVED} ${LOADED}`, "the VM runs, but may not stop again");
  link.answer();
  assert.equal(link.takeReplies(), REPLY);
});

Deno.test("COLO that names itself without a return path is sent no SHUT", async () => {
  const link = await Loopback.open();
  link.feed(fullStream(1, [command(COMMAND.MIG_CMD_ENABLE_COLO)]));
  assert.equal(link.takeReplies(), READY);
  link.feed(checkpoint(2));
  assert.equal(link.takeReplies(), `${REPLY} ${RECEIVED} ${LOADED}`);
});

Deno.test("a stream with a return path is given time to end, then taken for COLO", async () => {
  const link = await Loopback.open();
  link.feed(PLAIN_WITH_RETURN_PATH);
  assert.equal(link.takeReplies(), `${PONG} ${SHUT}`);
  link.now += 249;
  link.tick();
  assert.equal(link.takeReplies(), "");
  assert.equal(link.primary.mayBeColo, false);
  link.now++;
  link.tick();
  assert.equal(link.takeReplies(), READY);
  // QEMU may have stopped its VM for COLO by now, without a word.
  assert.deepEqual([link.primary.isColo, link.primary.mayBeColo], [false, true]);
});

Deno.test("known beforehand, a stream's kind is not waited for", async () => {
  const colo = await Loopback.open({ stream: "colo" });
  colo.feed(PLAIN_WITH_RETURN_PATH);
  assert.equal(colo.takeReplies(), `${PONG} ${SHUT} ${READY}`);
  const plain = await Loopback.open({ stream: "plain" });
  plain.feed(PLAIN_WITH_RETURN_PATH);
  assert.equal(plain.takeReplies(), `${PONG} ${SHUT}`);
  plain.end();
  assert.equal(plain.secondaryEvents.at(-1)?.kind, "handover");
});

Deno.test("the end of a plain stream hands the VM over, once all of it is there", async () => {
  for (const stream of [fullStream(1), PLAIN_WITH_RETURN_PATH]) {
    const link = await Loopback.open({ holdAnswers: true });
    link.feed(stream);
    link.end();
    assert.ok(!link.secondaryEvents.some(({ kind }) => kind === "handover"), "not before the ACK");
    link.answer();
    link.pump();
    assert.equal(link.secondaryEvents.at(-1)?.kind, "handover");
    assert.deepEqual(link.primaryEvents.map(({ kind }) => kind), ["committed"]);
    link.answer();
    assert.deepEqual(link.primaryEvents.at(-1), { kind: "handed-over", transaction: 1 });
  }
});

/** Every place to break off, and whether it is a loss or bad bytes; never a handover. */
const BREAKS: readonly (readonly [string, Uint8Array, typeof TransportError | typeof WireError])[] =
  [
    ["nothing at all", new Uint8Array(0), WireError],
    ["a plain stream's header", HEADER, WireError],
    ["a plain stream's RAM", fullStream(1).subarray(0, 3000), WireError],
    ["a plain stream's device state", fullStream(1).subarray(0, -300), WireError],
    ["a second plain stream", concat(fullStream(1), fullStream(2).subarray(0, 3000)), WireError],
    ["COLO's first pass", COLO_STREAM.subarray(0, -1), TransportError],
    ["COLO after its first pass", COLO_STREAM, TransportError],
    ["COLO before a checkpoint", concat(COLO_STREAM, REQUEST), TransportError],
    ["COLO in a checkpoint", concat(COLO_STREAM, REQUEST, SEND), TransportError],
    [
      "COLO in a checkpoint's RAM",
      concat(COLO_STREAM, checkpoint(2).subarray(0, 500)),
      TransportError,
    ],
    [
      "COLO in its device state",
      concat(COLO_STREAM, checkpoint(2).subarray(0, -1)),
      TransportError,
    ],
    ["COLO after a checkpoint", concat(COLO_STREAM, checkpoint(2)), TransportError],
    ["COLO that did not name itself", concat(fullStream(1), checkpoint(2)), TransportError],
  ];

for (const [where, stream, kind] of BREAKS) {
  Deno.test(`a break-off in ${where} is never a handover`, async () => {
    for (const holdAnswers of [false, true]) {
      const link = await Loopback.open({ holdAnswers });
      link.feed(stream);
      assert.throws(() => link.end(), kind);
      // What was on its way is still acknowledged, and even then nothing is handed over.
      for (let i = 0; i < 5; i++) {
        link.now += 1000;
        link.tick();
        link.answer();
      }
      assert.ok(!link.secondaryEvents.some((event) => event.kind === "handover"));
      assert.ok(!link.primaryEvents.some((event) => event.kind === "handed-over"));
      assert.equal(link.replica.staging, false, "what was half-way is dropped");
    }
  });
}

Deno.test("a stream that had its answer for COLO and ends is a loss", async () => {
  const link = await Loopback.open();
  link.feed(PLAIN_WITH_RETURN_PATH);
  link.now += 250;
  link.tick();
  assert.throws(() => link.end(), TransportError);
  assert.ok(!link.secondaryEvents.some((event) => event.kind === "handover"));
});

Deno.test("in a snapshot loop, a stream that follows calls off the wait for COLO", async () => {
  const link = await Loopback.open();
  link.feed(PLAIN_WITH_RETURN_PATH);
  assert.equal(link.takeReplies(), `${PONG} ${SHUT}`);
  link.feed(PLAIN_WITH_RETURN_PATH.subarray(0, 2000));
  link.now += 1000;
  link.tick();
  assert.equal(link.takeReplies(), PONG, "no READY into the second stream's return path");
  link.feed(PLAIN_WITH_RETURN_PATH.subarray(2000));
  assert.equal(link.takeReplies(), SHUT);
  link.end();
  assert.equal(link.secondaryEvents.at(-1)?.kind, "handover");
});

Deno.test("even cut byte by byte, a session carries the same bytes", async () => {
  const stream = concat(fullStream(1), fullStream(2), checkpoint(3), checkpoint(4));
  const whole = await Loopback.open();
  whole.feed(stream);
  const bytewise = await Loopback.open();
  for (const byte of stream) bytewise.feed(Uint8Array.of(byte));
  assert.deepEqual(composed(bytewise.replica), composed(whole.replica));
  assert.equal(bytewise.primary.counters.payloadBytes, whole.primary.counters.payloadBytes);
  assert.equal(bytewise.counters.committed, 4);
  new LoadedVm().load(stream).equals(new LoadedVm().load(composed(whole.replica)));
});

Deno.test("a stream that never comes to its RAM is not kept for ever", async () => {
  const link = await Loopback.open();
  link.feed(concat(HEADER, configuration()));
  const pings = concat(...Array(8000).fill(PING));
  assert.throws(() => {
    for (let i = 0; i < 100; i++) link.feed(pings);
  }, /no list of RAM blocks in the stream's first 4194304 bytes/);
});

Deno.test("known to be snapshots, no stream's end hands the VM over, and a broken one is a loss", async () => {
  const link = await Loopback.open({ stream: "snapshots" });
  for (let round = 1; round < 4; round++) {
    link.feed(PLAIN_WITH_RETURN_PATH);
    link.end();
    assert.equal(link.replica.committed, round);
  }
  link.feed(PLAIN_WITH_RETURN_PATH.subarray(0, 3000));
  assert.throws(() => link.end(), TransportError);
  assert.equal(link.replica.committed, 3);
  assert.ok(!link.secondaryEvents.some((event) => event.kind === "handover"));
});

Deno.test("what is sent adds up to the bytes on the wire, and records are told from state", async () => {
  const link = await Loopback.open();
  link.feed(COLO_STREAM);
  const { counters } = link.primary;
  const records = [page(0, 1, "rom"), zero(1), xbzrle(1, Uint8Array.of(3, 2, 1, 1)), page(2, 3)];
  for (const sent of [records, records.slice(0, 2), records]) {
    const before = counters.stateBytes;
    const body = checkpointBody(2, ...sent);
    link.feed(concat(REQUEST, SEND, body));
    assert.equal(counters.stateBytes - before, body.length - concat(sent).length);
  }
  const { stream, events, framing } = link.primary.sent;
  assert.equal(stream, counters.payloadBytes);
  assert.equal(events, 0);
  assert.equal(stream + framing, link.wire.reduce((sum, { length }) => sum + length, 0));
});

Deno.test("a session is left in the middle of a checkpoint, though it is held back to be compressed", async () => {
  const compression = {
    treatments: [{ delta: true, pack: false, dedup: true }],
    cacheBytes: 2 ** 20,
  };
  const link = await Loopback.open({ compression });
  link.feed(COLO_STREAM);
  link.feed(checkpoint(2).subarray(0, -9));
  assert.ok(link.primary.holding);
  assert.ok(link.primary.leave({ reason: "goes-on", text: "" }));
  link.pump();
  assert.equal(link.secondaryEvents.at(-1)?.kind, "left");
  assert.equal(link.primaryEvents.at(-1)?.kind, "left");
  link.now += 1000;
  link.tick();
  assert.equal(link.replica.committed, 1);
  assert.equal(
    link.primary.leave({ reason: "goes-on", text: "" }),
    false,
    "there is nothing to leave",
  );
});
