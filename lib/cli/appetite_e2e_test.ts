/** What a hostile peer can make either end keep, by the memory that the process takes at its peak. */
import assert from "node:assert/strict";
import { concat, fullStream, name, u32, u64 } from "../qemu/testing/synthetic_stream.ts";
import { rawFrame, rawHello, RawPeer, rawTransaction } from "../lab/testing/raw_peer.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";
import { until } from "../lab/program/until.ts";
import { loadStream } from "../lab/recording/streams.ts";
import { MOST_UNRELEASED_BYTES } from "../replica/events/unreleased_output.ts";
import { DIGEST_LAST, NACK_REASON, type NackReason, TXN } from "../txn/wire.ts";

const MIB = 2 ** 20;
/** What comes and goes with so many frames: memory that the runtime has not collected yet. */
const SLACK_BYTES = 96 * MIB;

/** The most memory that the process has ever had; 0 if it has ended. */
function peakBytes(pid: number): number {
  const found = /VmHWM:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`));
  return found === null ? 0 : Number(found[1]) * 1024;
}

/** Whether a sender that comes now is answered. */
async function isServed(path: string): Promise<boolean> {
  using peer = await RawPeer.connect(path);
  await peer.say(rawHello());
  return (await peer.hear())?.command === TXN.HELLO;
}

/** Runs `attack` against a `kemari recv` that has a replica. */
async function againstReceiver(
  mostBytes: number,
  attack: (peer: RawPeer) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-appetite-" });
  const world = Deno.listen({ transport: "unix", path: `${folder}/out` });
  try {
    const tap = ["--net", `n=unix:${folder}/in,unix:${folder}/out`];
    await using recv = new KemariProcess(["recv", `unix:${folder}/s`, ...tap]);
    await recv.listening();
    {
      using peer = await RawPeer.connect(`${folder}/s`);
      await peer.greet();
      await peer.say(rawTransaction(1, fullStream(1)));
      await peer.expect(TXN.ACK);
      const before = peakBytes(recv.pid);
      await attack(peer);
      const taken = peakBytes(recv.pid) - before;
      assert.ok(taken < mostBytes, `${Math.round(taken / MIB)} MiB more than before`);
    }
    await until(() => isServed(`${folder}/s`), "the next sender's turn");
  } finally {
    world.close();
    await Deno.remove(folder, { recursive: true });
  }
}

/** The reason that the peer was told, once all was said that can be. */
async function refusal(peer: RawPeer): Promise<NackReason | undefined> {
  const nack = (await peer.hearAll()).find(({ command }) => command === TXN.NACK);
  const code = nack && (nack.payload[0] << 8 | nack.payload[1]);
  return Object.entries(NACK_REASON).find(([, value]) => value === code)?.[0] as NackReason;
}

/** Says so much as is taken. */
async function sayAll(peer: RawPeer, pieces: Iterable<Uint8Array>): Promise<void> {
  try {
    for (const piece of pieces) await peer.say(piece);
  } catch {
    // The other end has heard enough.
  }
}

function* times(count: number, make: (i: number) => Uint8Array): Generator<Uint8Array> {
  for (let i = 0; i < count; i++) yield make(i);
}

Deno.test("questions for digests whose answers nobody reads are refused from the second on", () =>
  againstReceiver(SLACK_BYTES, async (peer) => {
    const queries = concat(
      ...times(1000, () => rawFrame({ command: TXN.DIGEST_QUERY }, new Uint8Array(8))),
    );
    await sayAll(peer, times(60, () => queries));
    assert.equal(await refusal(peer), "protocol");
  }));

Deno.test("packets that are never released are refused when they are too many", () =>
  againstReceiver(MOST_UNRELEASED_BYTES.packets + SLACK_BYTES, async (peer) => {
    const packet = concat(1, name("n"), new Uint8Array(60_000));
    const packets = Array.from({ length: 16 }, () => packet);
    const stream = fullStream(2);
    await sayAll(peer, times(1000, (i) => rawTransaction(2 + i, stream, packets)));
    assert.equal(await refusal(peer), "too-large");
  }));

Deno.test("inputs without end are forgotten, the oldest first", () =>
  // 480 MB come in: on a busy machine the runtime collects what is forgotten of them late.
  againstReceiver(240 * MIB, async (peer) => {
    const inputs = concat(
      ...times(16, () =>
        rawFrame(
          { command: TXN.INPUT, transaction: 2 },
          concat(name("n"), new Uint8Array(60_000)),
        )),
    );
    await sayAll(peer, times(500, () => inputs));
    await peer.say(rawTransaction(2, fullStream(2)));
    await peer.expect(TXN.ACK);
  }));

/** One page of a block, by its number; of 0 pages, how many the block has. */
function run(block: string, page: number, count: number): Uint8Array {
  return concat(name(block), u64(page), u32(count), new Uint8Array(16 * count).fill(1));
}

/**
 * Runs `kemari send` against a receiver that has a replica, and answers the question what that holds.
 *
 * @returns How it has ended, and how much more memory it has had at its peak because of the answer.
 */
async function againstSender(answer: (peer: RawPeer) => Promise<void>) {
  const folder = await Deno.makeTempDir({ prefix: "kemari-appetite-" });
  const listener = Deno.listen({ transport: "unix", path: `${folder}/s` });
  try {
    await using send = new KemariProcess(["send", `unix:${folder}/s`], { stdin: "piped" });
    using peer = new RawPeer(await listener.accept());
    const hello = await peer.expect(TXN.HELLO);
    const session = hello.payload.slice(16, 32);
    await peer.say(rawHello({ session, committed: 7, maxTransactionBytes: 0 }));
    const written = send.write(loadStream("plain-11.1-bios"));
    await peer.expect(TXN.DIGEST_QUERY);
    const before = peakBytes(send.pid);
    await answer(peer);
    const next = await peer.hear();
    const takenBytes = peakBytes(send.pid) - before;
    peer.close();
    const { code, stderr } = await send.ended();
    await written;
    return { next: next?.command, code, stderr, takenBytes };
  } finally {
    listener.close();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("digests of a terabyte of pages that the sender does not have take none of its memory", async () => {
  const { next, takenBytes } = await againstSender(async (peer) => {
    await peer.say(rawFrame({ command: TXN.DIGEST }, run("huge", 2 ** 32, 0)));
    // A page in each 16 MiB of guest memory, where a sender keeps its own page's neighbours too.
    for (let page = 0; page < 2 ** 28; page += 3000 * 4096) {
      const runs = Array.from({ length: 3000 }, (_, i) => run("huge", page + i * 4096, 1));
      await peer.say(rawFrame({ command: TXN.DIGEST }, concat(...runs)));
    }
    await peer.say(rawFrame({ command: TXN.DIGEST, flags: DIGEST_LAST }));
  });
  assert.equal(next, TXN.BEGIN);
  assert.ok(takenBytes < SLACK_BYTES, `${Math.round(takenBytes / MIB)} MiB more than before`);
});

Deno.test("digests of blocks without end are refused", async () => {
  const { code, stderr } = await againstSender(async (peer) => {
    const frames = times(4000, (i) =>
      rawFrame(
        { command: TXN.DIGEST },
        concat(...times(2000, (n) => run(`block ${i} ${n}`, 1, 0))),
      ));
    await sayAll(peer, frames);
  });
  assert.equal(code, 3, stderr);
  assert.match(stderr, /digests of block ".*" of 1 pages \(too-large\)/);
});
