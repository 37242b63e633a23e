/** What a hostile peer, monitor or control socket says is shown, and obeyed by no terminal. */
import assert from "node:assert/strict";
import { concat, configuration, HEADER, name, u16, u32 } from "../qemu/testing/synthetic_stream.ts";
import { encodeHello, type Hello } from "../txn/hello.ts";
import { encodeHeader, type FrameHeader } from "../txn/frame_header.ts";
import { TXN } from "../txn/wire.ts";
import { runKemari } from "../lab/program/run_kemari.ts";
import { KemariProcess } from "../lab/program/kemari_process.ts";

/** Moves the cursor, forges a line, turns the direction of reading, and is no UTF-8. */
const WORDS = "x\x1b[2J\x9b1m\r\nkemari recv: FORGED\u202e\u2066\u2028\u200b\0";
const EVIL = concat(new TextEncoder().encode(WORDS), 0xff);
/** The beginning of what is shown of it. */
const SHOWN = "x\\u{1b}[2J\\u{9b}1m\\r\\nkemari recv: FORGED\\u{202e}";
const HELLO: Hello = {
  version: 1,
  features: 0x3f,
  session: new Uint8Array(16),
  heartbeatMs: 1000,
  graceMs: 60_000,
  committed: 0,
  maxTransactionBytes: 0,
  software: WORDS,
};

function frame(command: number, payload: Uint8Array, more: Partial<FrameHeader> = {}): Uint8Array {
  const header = { command, flags: 0, sequence: 0, transaction: 0, ...more };
  return concat(encodeHeader({ ...header, lengthBytes: payload.length }), payload);
}

const hello = frame(TXN.HELLO, encodeHello(HELLO));
const begin = frame(TXN.BEGIN, concat(), { flags: 1, transaction: 1 });
const inTransaction = { sequence: 1, transaction: 1 };
/** A name of a tap, as long as one may be. */
const TAP = concat(EVIL.length, EVIL);

/** What a sender says, by what is hostile in it. */
const SENDERS: Readonly<Record<string, Uint8Array>> = {
  "stray text": EVIL.subarray(0, 40),
  "the VM's name": frame(
    TXN.HELLO,
    encodeHello({ ...HELLO, fields: [{ tag: 2, bytes: EVIL.subarray(0, 30) }] }),
  ),
  "a disk's mark": frame(
    TXN.HELLO,
    encodeHello({ ...HELLO, fields: [{ tag: 5, bytes: concat(TAP, new Uint8Array(16), EVIL) }] }),
  ),
  "an event's tap": concat(hello, begin, frame(TXN.EVENT, concat(1, TAP, "frame"), inTransaction)),
  "an input's tap": concat(
    hello,
    frame(TXN.INPUT, concat(TAP, new Uint8Array(14)), { transaction: 1 }),
  ),
  "a question's disk": concat(
    hello,
    frame(TXN.DISK_QUERY, concat(new Uint8Array(10), 0x10, 0, new Uint8Array(14), 0x10, 0, TAP)),
  ),
  "the machine's name": concat(
    hello,
    begin,
    frame(
      TXN.CONTINUE,
      concat(HEADER, configuration(new TextDecoder("latin1").decode(EVIL.subarray(0, 30)), 99)),
      inTransaction,
    ),
  ),
  "a section's name": concat(
    hello,
    begin,
    frame(
      TXN.CONTINUE,
      concat(HEADER, configuration(), 4, u32(1), [TAP, name("x"), u32(0), u32(1)]),
      inTransaction,
    ),
  ),
  "the words of LEAVE": concat(hello, frame(TXN.LEAVE, concat(0, EVIL, EVIL))),
};

function assertHarmless(text: string, what: string): void {
  assert.doesNotMatch(
    text.replaceAll("\n", ""),
    /[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u,
    what,
  );
  for (const line of text.split("\n")) {
    assert.ok(!line.startsWith("kemari recv: FORGED"), what);
    assert.ok(line.length < 5000, what);
  }
}

/** Connects, says it, and hears everything until the other end closes. */
async function speak(port: number, bytes: Uint8Array): Promise<void> {
  using connection = await Deno.connect({ port });
  await connection.write(bytes);
  await connection.closeWrite();
  const buffer = new Uint8Array(65536);
  while (await connection.read(buffer) !== null);
}

Deno.test("kemari recv shows what a hostile sender says, in its log and in status", async () => {
  const folder = await Deno.makeTempDir({ prefix: "kemari-text-" });
  const control = `${folder}/ctl`;
  const taps = ["--net", `n=unix:${folder}/n,unix:${folder}/o`];
  const world = Deno.listen({ transport: "unix", path: `${folder}/o` });
  try {
    await using recv = new KemariProcess(["recv", "127.0.0.1:0", "--control", control, ...taps]);
    const port = Number((await recv.listening()).split(":").at(-1));
    for (const [what, bytes] of Object.entries(SENDERS)) {
      const before = recv.stderr.length;
      await speak(port, bytes);
      await recv.waitFor(new RegExp(`[^]{${before + 1}}`));
      assertHarmless(recv.stderr, what);
    }
    await recv.waitFor(/sender has ended the protection \(x\\u\{1b\}/);
    assert.ok(recv.stderr.includes(`sender connected: ${SHOWN}`), recv.stderr);
    using last = await Deno.connect({ port });
    await last.write(hello);
    await last.read(new Uint8Array(1024));
    for (const format of [["--json"], []]) {
      const { code, stdout, stderr } = await runKemari(["status", control, ...format]);
      assert.equal(code, 0, stderr);
      assertHarmless(stdout, `status ${format}`);
      assert.match(stdout, /sender.*x\\+u\{1b\}.*FORGED/);
    }
  } finally {
    world.close();
    await Deno.remove(folder, { recursive: true });
  }
});

/** Serves one connection after another with these words, at once or once it is asked something. */
async function serving(
  words: Uint8Array,
  isAsked: boolean,
  body: (socket: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "kemari-text-" });
  const listener = Deno.listen({ transport: "unix", path: `${folder}/s` });
  const served = (async () => {
    for await (const connection of listener) {
      try {
        if (isAsked) await connection.read(new Uint8Array(65536));
        await connection.write(words);
        while (await connection.read(new Uint8Array(65536)) !== null);
      } catch {
        // It has heard enough.
      } finally {
        connection.close();
      }
    }
  })();
  try {
    await body(`${folder}/s`);
  } finally {
    listener.close();
    await served;
    await Deno.remove(folder, { recursive: true });
  }
}

/** What a receiver says, by what is hostile in it. */
const RECEIVERS: Readonly<Record<string, Uint8Array>> = {
  "stray text": EVIL,
  "a refusal": frame(TXN.NACK, concat(u16(6), new Uint8Array(4000).map((_, i) => EVIL[i % 40]))),
  "another session": frame(TXN.HELLO, encodeHello({ ...HELLO, session: EVIL.subarray(0, 16) })),
};

for (const [what, words] of Object.entries(RECEIVERS)) {
  Deno.test(`kemari send shows what a hostile receiver says: ${what}`, () =>
    serving(words, true, async (socket) => {
      for (const format of ["text", "json"]) {
        const target = ["send", `unix:${socket}`, "--log-format", format];
        const { code, stdout, stderr } = await runKemari(target, { stdin: HEADER });
        assert.equal(code, 3, stderr);
        assert.equal(stdout, "");
        assertHarmless(stderr, what);
      }
    }));
}

Deno.test("kemari status and failover show what a hostile control socket says", async () => {
  const answer = JSON.stringify({ error: WORDS, hint: WORDS, exitCode: 3 });
  await serving(new TextEncoder().encode(answer + "\n"), true, async (socket) => {
    for (const args of [["status", socket], ["status", "--json", socket], ["failover", socket]]) {
      const { code, stdout, stderr } = await runKemari(args);
      assert.equal(code, args[0] === "status" ? 3 : 4, stderr);
      assertHarmless(stdout + stderr, args[0]);
      assert.ok(stderr.includes(SHOWN), stderr);
    }
  });
});

Deno.test("kemari doctor and protect show what a hostile monitor says", async () => {
  const version = { qemu: { major: 11, minor: 1, micro: 0 }, package: WORDS };
  const greeting = JSON.stringify({ QMP: { version, capabilities: [] } });
  const refusal = JSON.stringify({ error: { class: WORDS, desc: WORDS } });
  const words = new TextEncoder().encode(`${greeting}\n${refusal}\n`);
  await serving(words, false, async (socket) => {
    const commands = [["doctor", "--qmp", socket], ["protect", "127.0.0.1:1", "--qmp", socket]];
    for (const args of commands) {
      const { stdout, stderr } = await runKemari([...args, "--log-format", "json"]);
      assertHarmless(stdout + stderr, args[0]);
    }
  });
});
