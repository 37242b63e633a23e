/** What a peer that does not do its part may cost, at either end of a link. */
import assert from "node:assert/strict";
import { rawFrame, rawTransaction } from "../../lab/testing/raw_peer.ts";
import { concat } from "../../qemu/testing/synthetic_stream.ts";
import { LIMITS } from "../../qemu/wire.ts";
import { KEPT_INPUT_BYTES, SecondaryTaps } from "../../replica/events/secondary_taps.ts";
import { EVENT_OVERHEAD_BYTES } from "../../replica/events/tap_events.ts";
import { MOST_UNRELEASED_BYTES } from "../../replica/events/unreleased_output.ts";
import { MAX_HELD_BACK_BYTES } from "../../replica/secondary/held_back.ts";
import { MAX_HELLO_FIELDS } from "../../txn/hello_fields.ts";
import { MAX_DISK_QUERIES, TXN } from "../../txn/wire.ts";
import { DOOR_LIMITS } from "../door/antechamber.ts";
import { MAX_UNREAD_BYTES } from "../receive/session_answers.ts";
import type { Primary } from "../../replica/primary/primary.ts";
import { libc } from "../system/libc.ts";
import { never } from "../system/never.ts";
import type { Transport } from "../system/transport.ts";
import { PeerInput } from "./peer_input.ts";
import { Stage, tinyStream } from "./testing/link_stage.ts";

Deno.test("a sender that reads none of its answers is given up, and is told", async () => {
  await using stage = await Stage.open({ maxUnreadBytes: 4000 });
  const sender = await stage.greet();
  const isSaid = (bytes: Uint8Array) =>
    Number(libc().write(sender, bytes as Uint8Array<ArrayBuffer>, BigInt(bytes.length))) ===
      bytes.length;
  const said = stage.reactor.run(() => stage.receiver.session?.refused === true, never);
  // Each ACK is small: a socket takes some hundreds before they have to wait.
  for (let n = 1; stage.receiver.session?.refused !== true && n < 10_000; n++) {
    const transaction = rawTransaction(n, tinyStream(n % 200));
    while (!isSaid(transaction)) await stage.reactor.sleep(1, never);
    await stage.reactor.sleep(0, never);
  }
  await said;
  let heard = "";
  const buffer = new Uint8Array(65_536);
  await stage.reactor.run(() => {
    const count = Number(libc().read(sender, buffer, BigInt(buffer.length)));
    if (count > 0) heard += new TextDecoder("latin1").decode(buffer.subarray(0, count));
    return /bytes of answers that the sender does not read/.test(heard);
  }, never);
  libc().close(sender);
  await stage.quiet();
});

Deno.test("a secondary that does not stop talking has its turn, and not all of them", () => {
  const words = concat(...Array.from({ length: 100 }, () => rawFrame({ command: TXN.HEARTBEAT })));
  let reads = 0;
  const transport = {
    read(buffer: Uint8Array): number {
      reads++;
      for (let at = 0; at < buffer.length; at += words.length) {
        buffer.set(words.subarray(0, buffer.length - at), at);
      }
      return buffer.length;
    },
  } as unknown as Transport;
  let receivedBytes = 0;
  const primary = {
    isOver: false,
    receivePeer(_bytes: Uint8Array, start: number, end: number): number {
      receivedBytes += end - start;
      return end;
    },
  } as unknown as Primary;
  const input = new PeerInput(transport, primary);
  assert.equal(input.take(), undefined);
  assert.ok(receivedBytes >= 2 ** 20 && receivedBytes <= 2 ** 23, `${receivedBytes} bytes`);
  const before = reads;
  input.takeLastWords();
  assert.ok(reads > before && reads < before + 100);
});

Deno.test("PROTOCOL says what a peer may cost", () => {
  const url = new URL("../../../docs/PROTOCOL.md", import.meta.url);
  const [, section] = Deno.readTextFileSync(url).split("## What a peer may cost");
  const rows = section.split("\n## ")[0].split("\n").filter((line) => line.startsWith("| "));
  const told = new Map(rows.map((row) =>
    row.split("|").slice(1, 3).map((cell) => cell.trim()) as [
      string,
      string,
    ]
  ));
  const mib = (bytes: number) => `${bytes / 2 ** 20} MiB`;
  const { packets, writes } = MOST_UNRELEASED_BYTES;
  const { waiting, helloMs } = DOOR_LIMITS;
  const pending = new SecondaryTaps(new Map(), new Set()).mostPendingBytes;
  const input = `${KEPT_INPUT_BYTES / 1024} KiB`;
  const cases: Readonly<Record<string, string>> = {
    "fields of a HELLO": `${MAX_HELLO_FIELDS}`,
    "connections without a HELLO": `${waiting}, for ${helloMs / 1000} seconds each`,
    "RAM blocks, and their bytes": `${LIMITS.blocks.toLocaleString("en")}, and ${
      LIMITS.ramBytes / 2 ** 40
    } TiB`,
    "device state of a transaction": mib(LIMITS.deviceStateBytes),
    "packets that are not RELEASED": `${
      mib(packets)
    } for each NIC: their payloads, and ${EVENT_OVERHEAD_BYTES} bytes for each`,
    "writes to a shared disk that are not RELEASED": `${
      mib(writes)
    } for each disk, counted likewise`,
    "writes to copies whose storage does not answer": `${
      mib(pending)
    }; then ACKs wait, and nothing more is read`,
    INPUT: `${input} for each NIC; the oldest are forgotten`,
    "questions without a whole answer": `1 DIGEST_QUERY, ${MAX_DISK_QUERIES} DISK_QUERY`,
    "answers that the sender does not read": mib(MAX_UNREAD_BYTES),
    "what comes behind a transaction that is looked at": `${
      mib(MAX_HELD_BACK_BYTES)
    }; then nothing more is read`,
  };
  for (const [what, most] of Object.entries(cases)) assert.equal(told.get(what), most, what);
});
