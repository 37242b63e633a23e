import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { TransportError } from "../../errors.ts";
import { libc } from "../system/libc.ts";
import { PlainTransport } from "../system/transport.ts";
import type { Tamper } from "./testing/relay.ts";
import { failureOf, isOpen, onSocket, socketPair, TlsPair } from "./testing/tls_pair.ts";
import { TlsContext } from "./tls_context.ts";
import { TlsTransport } from "./tls_transport.ts";

const KEY = { identity: "kemari", key: new Uint8Array(32).fill(0x5a) };
const SENDER = TlsContext.ofKeys("sender", [KEY]);
const RECEIVER = TlsContext.ofKeys("receiver", [
  { identity: "older", key: new Uint8Array(32).fill(1) },
  KEY,
]);

function pair(
  tamper: { readonly up?: Tamper; readonly down?: Tamper } = {},
  contexts = { sender: SENDER, receiver: RECEIVER },
  bufferBytes?: number,
): TlsPair {
  return new TlsPair(
    {
      sender: (on) => new TlsTransport(on, contexts.sender),
      receiver: (on) => new TlsTransport(on, contexts.receiver),
    },
    tamper,
    bufferBytes,
  );
}

const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

Deno.test("both ends say who they are, and speak; what crosses is not to be read", async () => {
  await using both = pair();
  both.sender.say("a secret of the guest's ", "that nobody hears");
  both.receiver.say("nor this");
  await both.until(() => both.receiver.heard.length === 41 && both.sender.heard.length === 8);
  assert.equal(both.receiver.text, "a secret of the guest's that nobody hears");
  assert.equal(both.sender.text, "nor this");
  const wire = new TextDecoder("latin1").decode(
    Uint8Array.from([...both.recorded.up, ...both.recorded.down]),
  );
  assert.match(wire, /kemari/, "the key's name is said in the clear");
  assert.doesNotMatch(wire, /secret|nobody|nor this|Z{4}/);
  const encryption = both.receiver.transport.encryption;
  assert.ok(encryption.kind === "tls");
  assert.deepEqual([encryption.peer, encryption.inKernel], ["kemari", false]);
  assert.match(encryption.cipher!, /^TLS_(AES_128_GCM|CHACHA20_POLY1305)_SHA256$/);
});

Deno.test("pieces of any size arrive whole and in order, and are the sender's until they are written", async () => {
  await using both = pair({}, undefined, 10_000);
  const lengths = [1, 0, 24, 16383, 16384, 16385, 100_000, 3, 3, 3, 16380, 5, 2 ** 20, 40_000];
  const pieces = lengths.map((length) => new Uint8Array(randomBytes(length)));
  await both.until(() => isOpen(both));
  // A slow reader: the socket is full meanwhile.
  both.receiver.hearing(false);
  const { transport } = both.sender;
  both.sender.say(...pieces);
  both.receiver.say(...pieces);
  const total = lengths.reduce((sum, length) => sum + length, 0);
  assert.equal(transport.queued, total);
  assert.ok(transport.pendingBytes > 0);
  both.receiver.hearing(true);
  await both.until(() =>
    both.receiver.heard.length === total && both.sender.heard.length === total
  );
  assert.deepEqual([transport.written, transport.pendingBytes], [total, 0]);
  const all = hashOf(Uint8Array.from(pieces.flatMap((piece) => [...piece])));
  assert.deepEqual([hashOf(both.receiver.heard), hashOf(both.sender.heard)], [all, all]);
});

Deno.test("bytes that OpenSSL has read ahead wait for nobody to write more", async () => {
  // Read by the byte: no descriptor says that there is another one.
  await using both = pair({}, undefined, 1);
  both.sender.say(new Uint8Array(300).fill(7));
  await both.until(() => both.receiver.heard.length === 300);
  // And where the reader pauses in between.
  both.receiver.hearing(false);
  both.sender.say(new Uint8Array(20).fill(8));
  await both.reactor.sleep(5, new AbortController().signal);
  both.receiver.hearing(true);
  await both.until(() => both.receiver.heard.length === 320);
});

Deno.test("an end that is said is an end, behind all that was said before", async () => {
  await using both = pair();
  both.sender.say("all");
  await both.until(() => both.receiver.text === "all");
  both.sender.say(" of it");
  both.sender.transport.endOutput();
  await both.until(() => both.receiver.ended);
  assert.deepEqual([both.receiver.text, both.receiver.error], ["all of it", undefined]);
  // The other way is open still.
  both.receiver.say("thanks");
  await both.until(() => both.sender.text === "thanks");
  both.receiver.close();
  await both.until(() => both.sender.ended);
  assert.equal(both.sender.error, undefined);
});

Deno.test("a connection that ends without TLS's close is lost, at both ends, and has not ended", async () => {
  await using both = pair();
  both.sender.say("something");
  both.receiver.say("else");
  await both.until(() => both.receiver.text === "something" && both.sender.text === "else");
  both.cut();
  await both.until(() => both.receiver.isOver && both.sender.isOver);
  for (const end of [both.receiver, both.sender]) {
    assert.equal(end.ended, false);
    assert.match(failureOf(end).message, /ended without TLS's close: it was cut/);
  }
});

Deno.test("what came before a fault is told before the fault", async () => {
  // Both are in one read of the receiver's.
  await using both = pair();
  await both.until(() => isOpen(both));
  both.sender.say("the last words");
  both.receiver.hearing(false);
  await both.until(() => both.sender.transport.pendingBytes === 0);
  await both.reactor.sleep(5, new AbortController().signal);
  both.cut();
  both.receiver.hearing(true);
  await both.until(() => both.receiver.isOver);
  assert.equal(both.receiver.text, "the last words");
  assert.match(failureOf(both.receiver).message, /it was cut/);
});

const OTHER_KEY = { ...KEY, key: new Uint8Array(32).fill(0x5b) };
const OTHER_NAME = { ...KEY, identity: "another" };
const REFUSED: readonly {
  readonly what: string;
  readonly sender: readonly (typeof KEY)[];
  readonly receiver: readonly (typeof KEY)[];
  readonly atSender: RegExp;
  readonly atReceiver: RegExp;
}[] = [
  {
    what: "the wrong key",
    sender: [OTHER_KEY],
    receiver: [KEY],
    atSender: /the secondary's key "kemari" is another one/,
    atReceiver: /the sender's key "kemari" is not the one here/,
  },
  {
    what: "the right key by another name",
    sender: [OTHER_NAME],
    receiver: [KEY],
    atSender: /the secondary knows no key "another"/,
    atReceiver: /the sender says a key "another", which is not here/,
  },
  {
    what: "a name that would change the terminal",
    sender: [{ ...KEY, identity: "a\x1b[2Jb" }],
    receiver: [KEY],
    atSender: /knows no key/,
    atReceiver: /says a key "a\\u\{1b\}\[2Jb", which is not here/,
  },
  {
    what: "a second key of its file that is not the receiver's first",
    sender: [OTHER_KEY, KEY],
    receiver: [KEY],
    atSender: /is another one/,
    atReceiver: /is not the one here/,
  },
];
for (const { what, sender, receiver, atSender, atReceiver } of REFUSED) {
  Deno.test(`a sender with ${what} is refused, and both ends say why`, async () => {
    const contexts = {
      sender: TlsContext.ofKeys("sender", sender),
      receiver: TlsContext.ofKeys("receiver", receiver),
    };
    await using both = pair({}, contexts);
    both.sender.say("HELLO");
    await both.until(() => both.sender.isOver && both.receiver.isOver);
    assert.match(failureOf(both.sender).message, atSender);
    assert.match(failureOf(both.receiver).message, atReceiver);
    assert.equal(failureOf(both.receiver).phase, "handshake");
    assert.equal(both.receiver.heard.length, 0);
    for (const context of Object.values(contexts)) context.free();
  });
}

/** How many bytes of each direction a handshake takes. */
async function handshakeBytes(): Promise<{ up: number; down: number }> {
  await using both = pair();
  both.receiver.say("x");
  await both.until(() => both.sender.text === "x");
  const lastRecord = 5 + 1 + 1 + 16;
  return { up: both.recorded.up.length, down: both.recorded.down.length - lastRecord };
}

Deno.test("a cut at any byte of the handshake is a loss at both ends, and nothing was heard", async () => {
  const bytes = await handshakeBytes();
  for (const way of ["up", "down"] as const) {
    for (let at = 0; at < bytes[way]; at++) {
      const cutsAt: Tamper = (piece, offset) => {
        return offset + piece.length <= at ? piece : undefined;
      };
      // The bytes before the cut get through: a cut in the middle of what was written at once.
      let over = false;
      const tamper: Tamper = (piece, offset) => {
        if (over) return undefined;
        if (offset + piece.length <= at) return piece;
        over = true;
        return cutsAt(piece, offset) ?? piece.subarray(0, at - offset);
      };
      await using both = pair({ [way]: tamper });
      both.sender.say("HELLO");
      await both.until(() => over);
      await both.reactor.sleep(0, new AbortController().signal);
      both.cut();
      await both.until(() => both.receiver.isOver && both.sender.isOver);
      assert.equal(failureOf(both.receiver).phase, "handshake", `${way} ${at}`);
      assert.equal(failureOf(both.sender).phase, "handshake", `${way} ${at}`);
      assert.equal(both.receiver.heard.length, 0);
    }
  }
});

/** Changes one byte of a direction. */
const flips = (at: number, mask: number): Tamper => (piece, offset) => {
  if (at < offset || at >= offset + piece.length) return piece;
  piece[at - offset] ^= mask;
  return piece;
};

Deno.test("a byte that is changed anywhere is noticed, or has changed nothing", async () => {
  const said = "what the sender said";
  const answer = "what the receiver said";
  let noticed = 0;
  const bytes = await handshakeBytes();
  const record = (text: string) => 5 + text.length + 1 + 16;
  const ends = { up: bytes.up + record(said), down: bytes.down + record(answer) };
  for (const way of ["up", "down"] as const) {
    for (let at = 0; at < ends[way]; at++) {
      await using both = pair({ [way]: flips(at, 1 << at % 8) });
      both.sender.say(said);
      both.receiver.say(answer);
      const isDone = () =>
        both.sender.text === answer && both.receiver.text === said ||
        both.sender.isOver || both.receiver.isOver;
      // A length that was changed waits for bytes that never come: a peer's silence is for its user.
      const cancel = both.reactor.after(30, () => both.cut());
      await both.until(isDone);
      cancel();
      for (const [end, whole] of [[both.receiver, said], [both.sender, answer]] as const) {
        assert.ok(end.text === "" || end.text === whole, `${way} ${at}: ${end.text}`);
        if (end.isOver) failureOf(end);
      }
      const isWhole = both.sender.text === answer && both.receiver.text === said;
      if (!isWhole) noticed++;
      // Only what TLS itself does not believe may be changed: a record's version in the clear.
      else assert.ok(at < bytes[way], `${way} ${at}`);
    }
  }
  assert.ok(noticed > 0.9 * (ends.up + ends.down), `${noticed}`);
});

Deno.test("a recording of a whole session is worth nothing", async () => {
  let recording: Uint8Array<ArrayBuffer>;
  {
    await using both = pair();
    both.sender.say("HELLO and a whole VM");
    await both.until(() => both.receiver.text === "HELLO and a whole VM");
    recording = Uint8Array.from(both.recorded.up);
  }
  await using both = new TlsPair({
    sender: (on) => new PlainTransport(on, "peer"),
    receiver: (on) => new TlsTransport(on, RECEIVER),
  });
  both.sender.say(recording);
  await both.until(() => both.receiver.isOver);
  assert.equal(failureOf(both.receiver).phase, "handshake");
  assert.match(failureOf(both.receiver).message, /changed on its way, or is no part of this/);
  assert.equal(both.receiver.heard.length, 0);
});

Deno.test("records that come again, or in another order, are noticed", async () => {
  const record = 5 + 3 + 1 + 16;
  for (const order of [[0, 0], [1, 0], [1], [0, 1, 1]]) {
    const { up } = await handshakeBytes();
    let kept = new Uint8Array();
    let isRelayed = false;
    const tamper: Tamper = (piece, offset) => {
      if (offset < up) return piece;
      kept = Uint8Array.from([...kept, ...piece]);
      if (kept.length < 2 * record || isRelayed) return new Uint8Array();
      isRelayed = true;
      return Uint8Array.from(
        order.flatMap((i) => [...kept.subarray(i * record, (i + 1) * record)]),
      );
    };
    await using both = pair({ up: tamper });
    both.receiver.say("x");
    await both.until(() => both.sender.text === "x");
    both.sender.say("one");
    both.sender.say("two");
    await both.until(() => both.receiver.isOver);
    assert.match(failureOf(both.receiver).message, /changed on its way/);
    assert.ok("onetwo".startsWith(both.receiver.text), both.receiver.text);
  }
});

/** What others say where TLS is awaited: the first bytes of it are looked at. */
const STRANGERS: readonly (readonly [string, Uint8Array])[] = [
  [
    "a plain kemari",
    Uint8Array.of(0x4b, 0x4d, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9),
  ],
  ["a browser", new TextEncoder().encode("GET / HTTP/1.1\r\nHost: h\r\n\r\n")],
  ["an ssh", new TextEncoder().encode("SSH-2.0-OpenSSH_9.2p1\r\n")],
  [
    "somebody with noise",
    new Uint8Array(randomBytes(2000)).map((byte, i) => i === 0 ? 0x80 : byte),
  ],
];
for (const [who, bytes] of STRANGERS) {
  Deno.test(`${who} at an end that speaks TLS is told from a kemari, at either end`, async () => {
    for (const role of ["sender", "receiver"] as const) {
      const stranger = (on: ReturnType<typeof onSocket>) => new PlainTransport(on, "peer");
      const ours = (on: ReturnType<typeof onSocket>) =>
        new TlsTransport(on, role === "sender" ? SENDER : RECEIVER);
      await using both = new TlsPair(
        role === "sender"
          ? { sender: ours, receiver: stranger }
          : { sender: stranger, receiver: ours },
      );
      const [us, them] = role === "sender"
        ? [both.sender, both.receiver]
        : [both.receiver, both.sender];
      them.say(bytes);
      await both.until(() => us.isOver);
      assert.equal(failureOf(us).phase, "handshake");
      assert.match(failureOf(us).message, /speaks no TLS/);
      assert.match(failureOf(us).hint!, /same --key or --tls-dir/);
    }
  });
}

Deno.test("a receiver answers any number of strangers, and its descriptors are given back", () => {
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  for (let i = 0; i < 50; i++) {
    const [ours, theirs] = socketPair();
    const transport = new TlsTransport(onSocket(ours, "recv"), RECEIVER);
    assert.equal(transport.read(new Uint8Array(10)), undefined);
    libc().close(theirs);
    assert.throws(() => transport.read(new Uint8Array(10)), TransportError);
    transport.close();
    transport.close();
  }
  assert.equal([...Deno.readDirSync("/proc/self/fd")].length, before);
});
