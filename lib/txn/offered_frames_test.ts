import assert from "node:assert/strict";
import { StateError } from "../errors.ts";
import { decodeHeader, type FrameHeader } from "./frame_header.ts";
import { FRAME_RULES, frameName } from "./frame_rules.ts";
import { encodeHello, FEATURE, type FeatureName } from "./hello.ts";
import { TxnSender } from "./sender.ts";
import { DIGEST_LAST, HEADER_BYTES, TXN } from "./wire.ts";
import { HAS_ZSTD } from "./zstd_context.ts";
import { feed, frame, OPTIONS, SESSION } from "./testing/session_pair.ts";

/** The features that some frame needs. */
const NEEDED = new Set(
  Object.values(FRAME_RULES).map(({ needs, payloadNeeds }) => needs ?? payloadNeeds),
);

/** What a frame needs the receiver to have offered. */
function neededBy({ command, lengthBytes }: FrameHeader): FeatureName | undefined {
  const { needs, payloadNeeds } = FRAME_RULES[frameName(command)!];
  return needs ?? (lengthBytes > 0 ? payloadNeeds : undefined);
}

function headersIn(pieces: readonly Uint8Array[]): FrameHeader[] {
  const bytes = Uint8Array.from(pieces.flatMap((piece) => [...piece]));
  const headers: FrameHeader[] = [];
  for (let at = 0; at < bytes.length;) {
    const header = decodeHeader(bytes, at, bytes.length, at)!;
    headers.push(header);
    at += HEADER_BYTES + header.lengthBytes;
  }
  return headers;
}

/** All that a sender says to a receiver which offers so much, by a caller that wants everything. */
function saidTo(features: number): FrameHeader[] {
  const sender = new TxnSender(
    { ...OPTIONS, session: SESSION, packingClock: () => 0 },
    0,
  );
  const said = [...sender.takeOutput()];
  const answer = { ...OPTIONS, version: 1, features, session: SESSION };
  feed(sender, frame({ command: TXN.HELLO }, encodeHello(answer)));
  const offers = (feature: FeatureName) => (features & FEATURE[feature]) !== 0;
  if (sender.answersDigests) {
    sender.queryDigests(1, 2);
    feed(sender, frame({ command: TXN.DIGEST, flags: DIGEST_LAST }));
  } else assert.throws(() => sender.queryDigests(1, 2), StateError);
  if (sender.mayQueryDisk) sender.queryDisk(new Uint8Array(30));
  else assert.throws(() => sender.queryDisk(new Uint8Array(30)), StateError);
  const input = [new Uint8Array(20)];
  if (sender.takesInputs) sender.input(1, input);
  else assert.throws(() => sender.input(1, input), StateError);
  sender.begin("full");
  sender.forward(new Uint8Array(1000));
  if (offers("events")) sender.event([new Uint8Array(10)]);
  else assert.throws(() => sender.event([new Uint8Array(10)]), StateError);
  sender.commit(0);
  said.push(...sender.takeOutput());
  feed(sender, frame({ command: TXN.ACK, transaction: 1 }));
  sender.released(1);
  sender.tick(OPTIONS.heartbeatMs);
  sender.leave({ reason: "vm-ended", text: "the guest was shut down" });
  said.push(...sender.takeOutput());
  return headersIn(said);
}

Deno.test("a sender says nothing that needs what the receiver has not offered", () => {
  const names = Object.keys(FEATURE) as FeatureName[];
  for (let chosen = 0; chosen < 2 ** names.length; chosen++) {
    const offered = names.filter((_, i) => (chosen >> i & 1) === 1);
    const features = offered.reduce((sum, name) => sum | FEATURE[name], 0);
    const needed = new Set(saidTo(features).map(neededBy).filter((need) => need !== undefined));
    const wanted = offered.filter((name) => NEEDED.has(name) && (name !== "packed" || HAS_ZSTD));
    assert.deepEqual([...needed].sort(), [...wanted].sort(), `offered: ${offered}`);
  }
});
