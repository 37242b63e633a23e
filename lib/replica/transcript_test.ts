/** Small sessions, byte for byte: what docs/PROTOCOL.md explains, and what both ends still say. */
import assert from "node:assert/strict";
import { KemariError } from "../errors.ts";
import { frameName } from "../txn/frame_rules.ts";
import { TXN } from "../txn/wire.ts";
import { createPageDigest } from "./pages/page_digest.ts";
import { Loopback, type LoopbackConfig, type Said } from "./testing/loopback.ts";
import { SMALL_SESSIONS, type SmallSession } from "./testing/small_sessions.ts";
import {
  formatTranscripts,
  framesOf,
  lineOf,
  parseTranscripts,
  unpacked,
} from "./testing/transcript.ts";

const TRANSCRIPT = new URL("../../fixtures/transcripts/small-session.txt", import.meta.url);
const PROTOCOL = new URL("../../docs/PROTOCOL.md", import.meta.url);

const lines = (said: readonly Said[]) => unpacked(said).map((line) => lineOf(line, true));

async function carryOut(session: SmallSession): Promise<Said[]> {
  const link = await Loopback.open(session.config());
  session.run(link);
  return framesOf(link.said);
}

async function record(): Promise<string> {
  const transcripts = [];
  for (const session of SMALL_SESSIONS) {
    transcripts.push({ title: session.title, lines: await carryOut(session) });
  }
  return formatTranscripts(transcripts);
}

if (Deno.env.get("KEMARI_RECORD") === "1") Deno.writeTextFileSync(TRANSCRIPT, await record());
const RECORDED = parseTranscripts(Deno.readTextFileSync(TRANSCRIPT));

Deno.test("there is a record of each session, and every kind of frame is in one of them", () => {
  assert.deepEqual(RECORDED.map(({ title }) => title), SMALL_SESSIONS.map(({ title }) => title));
  const kinds = new Set(
    RECORDED.flatMap(({ lines }) =>
      lines.map((line) => "bytes" in line && frameName(line.bytes[2]))
    ),
  );
  for (const name of Object.keys(TXN)) assert.ok(kinds.has(name as keyof typeof TXN), name);
});

for (const [i, session] of SMALL_SESSIONS.entries()) {
  const recorded = RECORDED[i].lines;

  Deno.test(`both ends say what is recorded: ${session.title}`, async () => {
    assert.deepEqual(lines(await carryOut(session)), lines(recorded));
  });

  Deno.test(`a receiver answers what is recorded as recorded: ${session.title}`, () => {
    const link = new Loopback(session.config());
    const answers: Said[] = [];
    for (const line of recorded) {
      try {
        if (line.who === "time") link.secondary.tick(link.now = line.now);
        else if (line.who === "sender") link.tell(line.bytes);
      } catch (error) {
        // It says so itself.
        assert.ok(error instanceof KemariError, `${error}`);
      }
      answers.push(...link.hear().map((bytes) => ({ who: "receiver", bytes }) as const));
    }
    const expected = recorded.filter(({ who }) => who === "receiver");
    assert.deepEqual(lines(framesOf(answers)), lines(expected));
  });

  Deno.test(`a sender that hears what is recorded says what is recorded: ${session.title}`, async () => {
    const link = new RecordedReceiver(session.config(), recorded);
    await link.open();
    session.run(link);
    const expected = lines(recorded.filter(({ who }) => who === "sender"));
    const said = lines(link.heard);
    // What is said before a refusal is heard is not recorded: its receiver does not look at it.
    const isRefused = lineOf(recorded.at(-1)!).includes(" NACK ");
    assert.deepEqual(isRefused ? said.slice(0, expected.length) : said, expected);
  });
}

/** A receiver that says what is recorded, each of its frames behind as many of the sender's. */
class RecordedReceiver extends Loopback {
  readonly #recorded: readonly Said[];
  readonly #pieces: Said[] = [];
  #next = 0;

  constructor(config: LoopbackConfig, recorded: readonly Said[]) {
    super(config);
    this.#recorded = recorded.filter(({ who }) => who !== "time");
  }

  /** The sender's frames. */
  get heard(): Said[] {
    return framesOf(this.#pieces);
  }

  override tell(bytes: Uint8Array): void {
    this.#pieces.push({ who: "sender", bytes });
  }

  override hear(): Uint8Array[] {
    const before = (count: number) =>
      this.#recorded.slice(0, count).filter(({ who }) => who === "sender").length;
    const heard = this.heard.length;
    const said: Uint8Array[] = [];
    for (; this.#next < this.#recorded.length; this.#next++) {
      const line = this.#recorded[this.#next];
      if (line.who === "receiver" && before(this.#next) <= heard) said.push(line.bytes);
      else if (line.who !== "sender" || before(this.#next) >= heard) break;
    }
    return said;
  }
}

/** The worked example's lines, unfolded. */
function example(): string[] {
  const block = Deno.readTextFileSync(PROTOCOL).split("```text worked-example\n")[1]?.split(
    "```",
  )[0];
  assert.ok(block !== undefined, "there is a block called worked-example");
  return block.replace(/\n {2,}/g, "").split("\n").filter((line) => line !== "");
}

Deno.test("the worked example in docs/PROTOCOL.md is of these sessions, and has every kind of frame", () => {
  const recorded = RECORDED.flatMap(({ title, lines }) => {
    return [`# ${title}`, ...lines.map((line) => lineOf(line, true))];
  });
  let at = 0;
  const kinds = new Set<string>();
  for (const line of example()) {
    const found = recorded.indexOf(line, at);
    assert.ok(found >= 0, `is not recorded, or not there: ${line}`);
    at = found + 1;
    if (!line.startsWith("#") && !line.startsWith("time")) kinds.add(line.split(" ")[1]);
  }
  assert.deepEqual([...kinds].sort(), Object.keys(TXN).sort());
});

Deno.test("docs/PROTOCOL.md has the right digests", async () => {
  const text = Deno.readTextFileSync(PROTOCOL);
  const nothing = (await createPageDigest(0, 0))(new Uint8Array(0));
  assert.ok(text.includes(`\`${nothing.toHex()}\``));
  const zeros = (await createPageDigest(11, 22))(new Uint8Array(1024));
  assert.ok(text.includes(`\`${zeros.toHex()}\``));
});
