import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { libc } from "../system/libc.ts";
import { never } from "../system/never.ts";
import { Reactor } from "../system/reactor.ts";
import { libssl, takeTlsError } from "./libssl.ts";
import { failureOf, isOpen, onSocket, socketPair, TestEnd, TlsPair } from "./testing/tls_pair.ts";
import { beginCalls, endCalls } from "./tls_callbacks.ts";
import { TlsContext } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";

const KEY = { identity: "kemari", key: new Uint8Array(32).fill(0x5a) };
const SENDER = TlsContext.ofKeys("sender", [KEY]);
const RECEIVER = TlsContext.ofKeys("receiver", [KEY]);

const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

Deno.test("keys are renewed while bytes go both ways", async () => {
  await using both = new TlsPair({
    sender: (on) => new TlsTransport(on, SENDER, { recordsPerKey: 3 }),
    receiver: (on) => new TlsTransport(on, RECEIVER, { recordsPerKey: 2 }),
  });
  const bytes = new Uint8Array(randomBytes(40 * 16384));
  const isOver = () => both.sender.isOver || both.receiver.isOver;
  for (let at = 0; at < bytes.length; at += 16384) {
    const piece = bytes.subarray(at, at + 16384);
    both.sender.say(piece);
    both.receiver.say(piece);
    const length = at + piece.length;
    const isHeard = (end: TestEnd) => end.heard.length === length;
    await both.until(() => isHeard(both.sender) && isHeard(both.receiver) || isOver());
  }
  assert.deepEqual([both.sender.error, both.receiver.error], [undefined, undefined]);
  assert.equal(hashOf(both.sender.heard), hashOf(bytes));
  assert.equal(hashOf(both.receiver.heard), hashOf(bytes));
});

Deno.test("a new key waits until there is room for it, so that neither end waits for the other", async () => {
  await using both = new TlsPair({
    sender: (on) => new TlsTransport(on, SENDER, { recordsPerKey: 1 }),
    receiver: (on) => new TlsTransport(on, RECEIVER, { recordsPerKey: 1 }),
  });
  await both.until(() => isOpen(both));
  const bytes = new Uint8Array(randomBytes(2 ** 21));
  for (let i = 0; i < 3; i++) {
    // Neither reads, and both have more to say than any socket takes.
    for (const end of [both.sender, both.receiver]) end.hearing(false);
    for (const end of [both.sender, both.receiver]) end.say(bytes);
    assert.ok(both.sender.transport.pendingBytes > 0 && both.receiver.transport.pendingBytes > 0);
    for (const end of [both.sender, both.receiver]) end.hearing(true);
    const length = (i + 1) * bytes.length;
    await both.until(() =>
      both.sender.heard.length === length && both.receiver.heard.length === length
    );
  }
});

Deno.test("a peer that does nothing but renew its keys is given up", async () => {
  await using both = new TlsPair({
    sender: (on) => new TlsTransport(on, SENDER, { recordsPerKey: 1 }),
    receiver: (on) => new TlsTransport(on, RECEIVER),
  });
  await both.until(() => isOpen(both));
  // A record, a renewal, and so on: more than any honest sender has.
  for (let i = 0; i < 200; i++) both.sender.say("x");
  await both.until(() => both.receiver.isOver);
  assert.match(failureOf(both.receiver).message, /floods this connection with key updates/);
});

Deno.test("a peer that says nothing but that it renews its keys is given up, and holds nobody up", async () => {
  const { ssl } = libssl();
  const [ours, theirs] = socketPair();
  const { ssl: flooder } = SENDER.open(theirs, theirs);
  const caller = { keys: [KEY], keyOf: () => undefined, identified() {}, stepped() {} };
  const step = () => {
    beginCalls(caller);
    const isDone = ssl.SSL_do_handshake(flooder) === 1;
    endCalls();
    if (!isDone) takeTlsError();
    return isDone;
  };
  const transport = new TlsTransport(onSocket(ours, "recv"), RECEIVER);
  const reactor = new Reactor();
  const end = new TestEnd(reactor, transport);
  try {
    await reactor.run(() => step(), never);
    let updates = 0;
    await reactor.run(() => {
      // Each wants an answer, which nobody reads.
      for (let i = 0; i < 50 && !end.isOver; i++) {
        ssl.SSL_key_update(flooder, 1);
        if (step()) updates++;
      }
      return end.isOver;
    }, never);
    assert.match(failureOf(end).message, /floods this connection with key updates/);
    assert.ok(updates > 50, `${updates}`);
  } finally {
    end.close();
    ssl.SSL_free(flooder);
    libc().close(theirs);
    reactor.close();
  }
});
