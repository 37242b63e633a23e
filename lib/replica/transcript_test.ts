/** A small session, byte for byte: what docs/PROTOCOL.md explains, and what the ends still say. */
import assert from "node:assert/strict";
import { checkpoint, concat, fullStream, page, zero } from "../qemu/testing/synthetic_stream.ts";
import { crc32 } from "node:zlib";
import { HEADER_BYTES, TXN } from "../txn/wire.ts";
import { encodeDiskQuery } from "./events/disk_digest.ts";
import { FakeDisk } from "./testing/fake_disk.ts";
import { Loopback } from "./testing/loopback.ts";
import { createPageDigest } from "./pages/page_digest.ts";
import { Replica } from "./secondary/replica.ts";
import { SecondaryTaps } from "./events/secondary_taps.ts";

const TRANSCRIPT = new URL("../../fixtures/transcripts/small-session.txt", import.meta.url);
const PROTOCOL = new URL("../../docs/PROTOCOL.md", import.meta.url);

/** One line a frame: who, which command, the bytes; long payloads by length and CRC-32. */
function lines(who: "sender" | "receiver", wire: readonly Uint8Array[]): string[] {
  const bytes = concat(...wire);
  const found: string[] = [];
  for (let at = 0; at < bytes.length;) {
    const body = at + HEADER_BYTES;
    const next = body + new DataView(bytes.buffer, at).getUint32(16);
    const payload = bytes.slice(body, next);
    const name = Object.entries(TXN).find(([, code]) => code === bytes[at + 2])![0];
    const content = payload.length <= 128
      ? payload.toHex()
      : `(${payload.length} bytes, CRC-32 ${crc32(payload).toString(16).padStart(8, "0")})`;
    found.push(`${who} ${name} ${bytes.slice(at, body).toHex()} ${content}`.trimEnd());
    at = next;
  }
  return found;
}

async function session(): Promise<string> {
  const copy = new FakeDisk(4 * 4096);
  copy.write(2 * 4096, new Uint8Array(4096).fill(1));
  const taps = new SecondaryTaps(new Map([["disk0", { mode: "replicated", copy }]]), new Set());
  const link = await Loopback.open({ replica: new Replica(1e9, undefined, taps) });
  const transcript: string[] = [];
  const say = () => {
    transcript.push(...lines("sender", link.wire.splice(0)));
    transcript.push(...lines("receiver", link.answers.splice(0)));
  };
  say();
  const chunks = { chunkBytes: 4096, offset: 0, lengthBytes: copy.sizeBytes };
  link.primary.queryDisk(encodeDiskQuery({ tap: "disk0", seedLow: 11, seedHigh: 22, ...chunks }));
  link.pump();
  say();
  link.feed(fullStream(1));
  say();
  link.feed(fullStream(1));
  say();
  link.feed(checkpoint(2, page(4, 5, "pc.ram"), zero(0)));
  say();
  link.feed(checkpoint(3).subarray(0, 8));
  link.primary.cancel();
  link.pump();
  say();
  // What has been in COLO is not given away: a plain stream is, after as many transactions.
  const plain = await Loopback.open({ stream: "plain" });
  for (const seed of [1, 2, 3]) plain.feed(fullStream(seed));
  plain.wire.length = plain.answers.length = 0;
  plain.end();
  transcript.push(...lines("sender", plain.wire), ...lines("receiver", plain.answers));
  return transcript.join("\n") + "\n";
}

Deno.test("a small session goes over the wire as recorded", async () => {
  const transcript = await session();
  if (Deno.env.get("KEMARI_RECORD") === "1") Deno.writeTextFileSync(TRANSCRIPT, transcript);
  assert.equal(transcript, Deno.readTextFileSync(TRANSCRIPT));
});

Deno.test("the worked example in docs/PROTOCOL.md is that session", () => {
  const transcript = new Set(Deno.readTextFileSync(TRANSCRIPT).split("\n"));
  const text = Deno.readTextFileSync(PROTOCOL);
  const block = text.split("```text worked-example\n")[1]?.split("```")[0];
  assert.ok(block !== undefined, "there is a block called worked-example");
  const example = block.replace(/\n {2,}/g, "").trim().split("\n");
  assert.ok(example.length >= 10);
  for (const line of example) assert.ok(transcript.has(line), line);
});

Deno.test("docs/PROTOCOL.md has the right digests", async () => {
  const text = Deno.readTextFileSync(PROTOCOL);
  const nothing = (await createPageDigest(0, 0))(new Uint8Array(0));
  assert.ok(text.includes(`\`${nothing.toHex()}\``));
  const zeros = (await createPageDigest(11, 22))(new Uint8Array(1024));
  assert.ok(text.includes(`\`${zeros.toHex()}\``));
});
