/** Which transaction a NACK names: the one that is refused, and no other that is on its way. */
import assert from "node:assert/strict";
import { KemariError, QemuError, StateError, TransportError, WireError } from "../../errors.ts";
import { checkpoint, concat, fullStream } from "../../qemu/testing/synthetic_stream.ts";
import { decodeHeader } from "../../txn/frame_header.ts";
import { TxnSender } from "../../txn/sender.ts";
import { HEADER_BYTES, NACK_REASON, type NackReason, TXN } from "../../txn/wire.ts";
import { MEMORY_STORE, type ReplicaStore } from "../pages/page_store.ts";
import { FakeDisk } from "../testing/fake_disk.ts";
import { Loopback } from "../testing/loopback.ts";
import { ScriptedTaps } from "../testing/scripted_taps.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";
import type { TapEvent } from "../events/tap_events.ts";
import { reasonOf } from "./refusal_reason.ts";
import { Replica } from "./replica.ts";
import { Secondary } from "./secondary.ts";

const FAILURE = new TransportError("/ram", "write", "input/output error", { party: "replica" });
const DISK: TapEvent = { kind: "disk", tap: "d", sizeBytes: 8192, mode: "replicated" };
const COPIED: TapEvent = { kind: "copied", tap: "d" };
const WRITE: TapEvent = { kind: "write", tap: "d", offset: 0, data: Uint8Array.of(1) };

/** The NACK that a secondary has just said: the transaction that it names, and its reason. */
function nackOf(output: readonly Uint8Array[]): [number, NackReason] {
  for (const [i, piece] of output.entries()) {
    if (piece.length !== HEADER_BYTES) continue;
    const header = decodeHeader(piece, 0, piece.length, 0)!;
    if (header.command !== TXN.NACK) continue;
    const code = output[i + 1][1];
    const reason = Object.entries(NACK_REASON).find(([, value]) => value === code)![0];
    return [header.transaction, reason as NackReason];
  }
  return assert.fail("no NACK");
}

async function sessionOf(store: Partial<ReplicaStore> = {}) {
  const copy = new FakeDisk(8192);
  const config = { mode: "replicated", sizeBytes: 8192, copy } as const;
  const secondaryTaps = new SecondaryTaps(new Map([["d", config]]), new Set());
  const replica = new Replica(1e9, undefined, secondaryTaps, { ...MEMORY_STORE, ...store });
  const taps = new ScriptedTaps();
  const link = await Loopback.open({ replica, taps, stream: "colo", holdAnswers: true });
  taps.next = [DISK, COPIED];
  return { link, taps, copy, replica };
}

Deno.test("storage that fails at a commit refuses that transaction, though the next is on its way", async () => {
  const { link, replica } = await sessionOf({
    begin: (transaction) => {
      if (transaction === 2) throw FAILURE;
    },
  });
  link.feed(fullStream(1));
  link.feed(checkpoint(2).subarray(0, -1));
  assert.throws(() => link.feed(checkpoint(2).subarray(-1)), /input\/output error/);
  assert.deepEqual(nackOf(link.secondary.takeOutput()), [2, "storage"]);
  assert.equal(replica.committed, 1);
});

Deno.test("what fails in a transaction that was looked at refuses it, not the one behind it", () => {
  const begin = () => {
    throw FAILURE;
  };
  const replica = new Replica(1e9, undefined, undefined, { ...MEMORY_STORE, begin });
  const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
  const times = { heartbeatMs: 1000, graceMs: 5000, software: "test" };
  const config = { ...times, maxTransactionBytes: 1e9, committed: 0 };
  const secondary = new Secondary(replica, counters, config, 0, () => 0, () => true);
  const sender = new TxnSender({ ...times, session: new Uint8Array(16) }, 0);
  const say = () => {
    const bytes = concat(...sender.takeOutput());
    secondary.receive(bytes, 0, bytes.length, 0);
  };
  say();
  const hello = concat(...secondary.takeOutput());
  sender.receive(hello, 0, hello.length, 0);
  sender.begin("full");
  sender.forward(fullStream(1));
  sender.commit(0);
  say();
  assert.ok(secondary.awaitsCheck);
  sender.begin("checkpoint");
  sender.forward(checkpoint(2).subarray(8));
  say();
  assert.ok(secondary.open);
  assert.throws(() => secondary.release(0), FAILURE);
  assert.deepEqual(nackOf(secondary.takeOutput()), [1, "storage"]);
});

Deno.test("storage that fails behind an ACK refuses the connection, though a transaction is open", async () => {
  const { link, taps, copy } = await sessionOf();
  link.feed(fullStream(1));
  copy.isStalled = true;
  taps.next = [WRITE];
  link.feed(checkpoint(2));
  link.secondary.takeOutput();
  link.feed(checkpoint(3).subarray(0, -1));
  assert.ok(link.secondary.open);
  link.secondary.storageFault(FAILURE);
  assert.deepEqual(nackOf(link.secondary.takeOutput()), [0, "storage"]);
});

const REASONS: readonly (readonly [string, unknown, NackReason])[] = [
  [
    "a standby that refuses the state",
    new QemuError("standby", "GenericError", "no"),
    "not-loaded",
  ],
  [
    "a standby that does not start",
    new TransportError("standby", "spawn", "no", { party: "standby" }),
    "not-loaded",
  ],
  ["another machine's file", new TransportError("x", "read", "no", { party: "host" }), "internal"],
  ["a bug", new StateError("no"), "internal"],
  ["bytes", new WireError("transaction", 0, "bad-order", "no"), "protocol"],
];
for (const [what, error, wanted] of REASONS) {
  Deno.test(`the reason for ${what}: ${wanted}`, () => assert.equal(reasonOf(error), wanted));
}

Deno.test("no error that a session ends with is `stopping`: only the process's end is", () => {
  for (const [, error] of REASONS) {
    assert.ok(error instanceof KemariError);
    assert.notEqual(reasonOf(error), "stopping");
  }
});
