import assert from "node:assert/strict";
import { KemariError, StateError, WireError } from "../../errors.ts";
import {
  checkpoint,
  concat,
  fullStream,
  u16,
  xbzrle,
} from "../../qemu/testing/synthetic_stream.ts";
import { encodeHeader } from "../../txn/frame_header.ts";
import { HEADER_BYTES, NACK_REASON, type NackReason, TXN } from "../../txn/wire.ts";
import { fingerprint, Loopback } from "../testing/loopback.ts";

/** The NACK in what a secondary said last: transaction, reason, text. */
function nackOf(answers: readonly Uint8Array[]): [number, NackReason, string] {
  const bytes = concat(...answers);
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length;) {
    const next = at + HEADER_BYTES + view.getUint32(at + 16);
    if (bytes[at + 2] === TXN.NACK) {
      const reason = Object.entries(NACK_REASON).find(([, code]) => {
        return code === view.getUint16(at + HEADER_BYTES);
      })!;
      const text = new TextDecoder().decode(bytes.subarray(at + HEADER_BYTES + 2, next));
      return [Number(view.getBigUint64(at + 8)), reason[0] as NackReason, text];
    }
    at = next;
  }
  return assert.fail("no NACK");
}

/** A session with one committed stream, and what it takes to look at the refusal. */
async function session(maxTransactionBytes?: number) {
  const link = await Loopback.open({ maxTransactionBytes, hidesLimit: true });
  link.feed(fullStream(1));
  const before = [fingerprint(link.replica), link.replica.memoryBytes];
  return {
    link,
    refused(act: () => void): [number, NackReason, string] {
      assert.throws(act, KemariError);
      assert.deepEqual([fingerprint(link.replica), link.replica.memoryBytes], before);
      assert.equal(link.replica.staging, false);
      return nackOf(link.secondary.takeOutput());
    },
  };
}

Deno.test("a stream fault is refused with the fault and its offset", async () => {
  const { link, refused } = await session();
  const [transaction, reason, text] = refused(() =>
    link.feed(checkpoint(2, xbzrle(0, concat(u16(0)), "pc.ram")))
  );
  assert.deepEqual([transaction, reason], [2, "stream"]);
  assert.match(text, /migration stream, offset \d+: XBZRLE has an empty run/);
});

Deno.test("a transaction that is too large is refused as that", async () => {
  const { link, refused } = await session(5 * 1024);
  const six = [1, 2, 3, 4, 5, 6].map((n) =>
    xbzrle(n, Uint8Array.of(0, 1, 9), n === 1 ? "pc.ram" : undefined)
  );
  const [transaction, reason, text] = refused(() => link.feed(checkpoint(2, six)));
  assert.deepEqual([transaction, reason], [2, "too-large"]);
  assert.match(text, /more than 5120 bytes/);
});

Deno.test("bytes that are not the protocol's are refused as that", async () => {
  for (const [text, expected] of [["GET / HTTP/1.1\r\n\r\n", "protocol"]] as const) {
    const { link, refused } = await session();
    const bytes = new TextEncoder().encode(text);
    const [transaction, reason, message] = refused(() =>
      link.secondary.receive(bytes, 0, bytes.length, link.now)
    );
    assert.deepEqual([transaction, reason], [0, expected]);
    assert.match(message, /does not speak kemari/);
  }
});

Deno.test("damage on the way is refused as that", async () => {
  let damaged = false;
  const link = await Loopback.open({
    tamper: (bytes) => {
      if (bytes.length > 1000 && !damaged) {
        damaged = true;
        bytes[500] ^= 1;
      }
      return bytes;
    },
  });
  assert.throws(() => link.feed(fullStream(1)), WireError);
  const [transaction, reason] = nackOf(link.secondary.takeOutput());
  assert.deepEqual([transaction, reason], [1, "checksum"]);
  assert.equal(link.replica.committed, 0);
  assert.equal(link.replica.memoryBytes, 0);
});

Deno.test("a checkpoint for a replica that has nothing is refused", async () => {
  const link = await Loopback.open();
  const frame = encodeHeader({
    command: TXN.BEGIN,
    flags: 0,
    sequence: 0,
    transaction: 1,
    lengthBytes: 0,
  });
  assert.throws(
    () => link.secondary.receive(frame, 0, frame.length, link.now),
    /before any full state/,
  );
  assert.equal(nackOf(link.secondary.takeOutput())[1], "protocol");
});

Deno.test("a refusal is said once, for the reason it has", async () => {
  const cases: readonly (readonly [Error, NackReason])[] = [
    [new WireError("transaction", 0, "bad-version", "v"), "version"],
    [new WireError("transaction", 0, "unsupported", "f"), "version"],
    [new WireError("migration", 0, "unsupported", "s"), "stream"],
    [new WireError("vmdesc", 0, "bad-length", "s"), "stream"],
    [new StateError("bug"), "internal"],
    [new TypeError("bug"), "internal"],
  ];
  for (const [error, reason] of cases) {
    const { secondary } = await Loopback.open();
    secondary.refuse(error);
    secondary.refuse(error);
    const output = secondary.takeOutput();
    assert.deepEqual(nackOf(output).slice(0, 2), [0, reason]);
    assert.equal(output.length, 2, "a header and a payload");
  }
});

Deno.test("a secondary counts what it commits and tells of it in order", async () => {
  const link = await Loopback.open();
  link.feed(fullStream(1));
  link.feed(checkpoint(2));
  assert.deepEqual(link.secondaryEvents.map((event) => event.kind), [
    "hello",
    "committed",
    "committed",
  ]);
  assert.equal(link.counters.committed, 2);
  assert.equal(link.counters.pages, link.primary.counters.pages);
  assert.equal(link.counters.zeroPages, link.primary.counters.zeroPages);
  assert.equal(link.counters.payloadBytes, link.primary.counters.payloadBytes);
  assert.equal(link.secondary.peer?.software, "kemari test");
  assert.equal(link.secondary.arriving.summary().count, 2);
});

Deno.test("a sender that goes away on purpose leaves the replica as it was", async () => {
  const { link } = await session();
  const before = fingerprint(link.replica);
  link.feed(checkpoint(2).subarray(0, 900));
  assert.equal(link.secondary.open, true);
  link.primary.cancel();
  link.pump();
  assert.deepEqual(link.secondaryEvents.at(-1), { kind: "cancelled", transaction: 2 });
  assert.equal(link.secondary.open, false);
  assert.equal(fingerprint(link.replica), before);
});
