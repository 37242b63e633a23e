import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { SESSION_KEY_LIFE_MS, SessionKeys } from "../../keys/session_keys.ts";
import { sessionTransport } from "./session_transport.ts";
import { TestAuthority } from "./testing/test_certificates.ts";
import { type TestEnd, TlsPair } from "./testing/tls_pair.ts";
import { certificateFiles } from "./certificate_files.ts";
import { TlsContext } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";

const newKey = (identity = "session-1", fill = 0x5a) => ({
  identity,
  key: new Uint8Array(32).fill(fill),
});

/** Has a sender with a key of its own session meet a receiver, until both have spoken or one is lost. */
async function meet(receiver: TlsContext, key = newKey()) {
  await using both = new TlsPair({
    sender: (on) => sessionTransport(on, key),
    receiver: (on) => new TlsTransport(on, receiver),
  });
  both.sender.say("HELLO");
  both.receiver.say("hello");
  const isDone = (end: TestEnd) => end.isOver || end.heard.length === 5;
  await both.until(() => isDone(both.sender) && isDone(both.receiver));
  const { encryption } = both.receiver.transport;
  return {
    heard: both.receiver.text,
    peer: encryption.kind === "tls" ? encryption.peer : undefined,
    sender: both.sender.error,
    receiver: both.receiver.error,
  };
}

function assertRefused(met: Awaited<ReturnType<typeof meet>>): void {
  assert.equal(met.heard, "");
  assert.ok(met.sender instanceof TransportError && met.receiver instanceof TransportError);
  assert.match(met.sender.message, /the secondary knows no key "session-1"/);
  assert.match(met.sender.hint!, /good for a minute, at the recv that ssh has found/);
  assert.match(met.receiver.message, /the sender says a key "session-1", which is not here/);
}

Deno.test("a session's key lets one sender in, and nobody behind it", async () => {
  const keys = new SessionKeys();
  const receiver = TlsContext.ofKeys("receiver", [], keys);
  assertRefused(await meet(receiver));
  assert.ok(keys.add(newKey(), performance.now()));
  const met = await meet(receiver);
  assert.deepEqual(met, {
    heard: "HELLO",
    peer: "session-1",
    sender: undefined,
    receiver: undefined,
  });
  assert.equal(keys.count(performance.now()), 0);
  assertRefused(await meet(receiver));
  receiver.free();
});

Deno.test("whoever guesses at a session's key does not use it up", async () => {
  const keys = new SessionKeys();
  const receiver = TlsContext.ofKeys("receiver", [], keys);
  keys.add(newKey(), performance.now());
  const { heard, receiver: error } = await meet(receiver, newKey("session-1", 0x5b));
  assert.equal(heard, "");
  assert.ok(error instanceof TransportError);
  assert.equal((await meet(receiver)).heard, "HELLO");
  receiver.free();
});

Deno.test("a session's key is of no use when its time is over", async () => {
  const keys = new SessionKeys();
  const receiver = TlsContext.ofKeys("receiver", [], keys);
  keys.add(newKey(), performance.now() - SESSION_KEY_LIFE_MS);
  assertRefused(await meet(receiver));
  receiver.free();
});

Deno.test("a receiver with a key file, or certificates, takes sessions' keys beside them", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-session-" });
  try {
    const authority = await TestAuthority.make(`${folder}/ca`);
    const files = await authority.issue(`${folder}/server`, { usage: "server" });
    for (
      const make of [
        (keys: SessionKeys) => TlsContext.ofKeys("receiver", [newKey("kemari", 7)], keys),
        (keys: SessionKeys) =>
          TlsContext.ofCertificates("receiver", certificateFiles(files, "receiver"), keys),
      ]
    ) {
      const keys = new SessionKeys();
      const receiver = make(keys);
      keys.add(newKey(), performance.now());
      const met = await meet(receiver);
      assert.deepEqual([met.heard, met.peer, met.sender], ["HELLO", "session-1", undefined]);
      assert.equal((await meet(receiver)).heard, "");
      receiver.free();
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
