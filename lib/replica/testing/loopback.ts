/** For tests: a primary and a secondary joined in one process, on a fake clock. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import assert from "node:assert/strict";
import { Carry } from "../../bytes/carry.ts";
import { StreamParser } from "../../qemu/stream_parser.ts";
import type { End } from "../../txn/frame_rules.ts";
import type { HelloField } from "../../txn/hello_fields.ts";
import { SessionModel } from "../../txn/testing/end_model.ts";
import { createPageDigest, type PageDigest } from "../pages/page_digest.ts";
import { Primary, type PrimaryConfig, type PrimaryEvent } from "../primary/primary.ts";
import { Replica } from "../secondary/replica.ts";
import { Secondary, type SecondaryCounters, type SecondaryEvent } from "../secondary/secondary.ts";

/** Settings that differ from case to case. */
export interface LoopbackConfig extends Partial<PrimaryConfig> {
  readonly maxTransactionBytes?: number;
  /** The secondary does not say what its limit is. */
  readonly hidesLimit?: boolean;
  /** Goes on with this replica, as a new session does. */
  readonly replica?: Replica;
  /** Withholds what the secondary says until {@link Loopback.answer}. */
  readonly holdAnswers?: boolean;
  /** Called with every piece on its way to the secondary; may replace it. */
  readonly tamper?: (bytes: Uint8Array) => Uint8Array;
  /** More that the primary says in HELLO. */
  readonly fields?: readonly HelloField[];
}

/** What was said, or how late it was. */
export type Said =
  | { readonly who: "sender" | "receiver"; readonly bytes: Uint8Array }
  | { readonly who: "time"; readonly now: number };

const DIGEST_SEED = [11, 22] as const;
let digest: PageDigest | undefined;

export class Loopback {
  now = 0;
  readonly primary: Primary;
  readonly replica: Replica;
  readonly secondary: Secondary;
  readonly counters: SecondaryCounters = {
    committed: 0,
    pages: 0,
    zeroPages: 0,
    payloadBytes: 0,
    lastPayloadBytes: 0,
  };
  readonly replies: Uint8Array[] = [];
  readonly primaryEvents: PrimaryEvent[] = [];
  readonly secondaryEvents: SecondaryEvent[] = [];
  /** Everything that went to the secondary, and how much of it. */
  readonly wire: Uint8Array[] = [];
  /** Everything that the secondary said. */
  readonly answers: Uint8Array[] = [];
  /** Both, in the order in which they were heard, and the time where it was let pass. */
  readonly said: Said[] = [];
  readonly #config: LoopbackConfig;
  /** Knows by the table of rules what each end has to make of what it hears; not of what is tampered with. */
  #model: SessionModel | undefined;
  readonly #toSecondary = new Carry();
  readonly #toPrimary = new Carry();
  #held: Uint8Array[] = [];
  #unparsed: Uint8Array = new Uint8Array(0);

  #listen(from: End, bytes: Uint8Array): void {
    for (const { name, verdict } of this.#model?.passes(from, bytes) ?? []) {
      assert.notEqual(verdict.is, "refused", `a ${from} must not say ${name} there`);
    }
  }

  /** Nothing has been said yet, see {@link open}. */
  constructor(config: LoopbackConfig) {
    this.#config = config;
    const clock = () => this.now;
    const session = Uint8Array.from({ length: 16 }, (_, i) => i);
    this.primary = new Primary(
      { commit: "async", stream: "auto", maxInFlightBytes: 1e9, ...config },
      {
        session,
        heartbeatMs: 1000,
        graceMs: 5000,
        software: "kemari test",
        fields: config.fields,
      },
      0,
      clock,
    );
    const maxTransactionBytes = config.maxTransactionBytes ?? 1e9;
    this.replica = config.replica ?? new Replica(maxTransactionBytes);
    if (config.tamper === undefined) this.#model = new SessionModel(this.replica.committed);
    this.secondary = new Secondary(
      this.replica,
      this.counters,
      {
        heartbeatMs: 1000,
        graceMs: 5000,
        maxTransactionBytes: config.hidesLimit ? 0 : maxTransactionBytes,
        takesInputs: this.replica.taps.keepsInputs,
        storesPages: this.replica.storesPages,
        committed: this.replica.committed,
        software: "kemari test",
      },
      0,
      clock,
    );
  }

  static async open(config: LoopbackConfig = {}): Promise<Loopback> {
    const loopback = new Loopback(config);
    await loopback.open();
    return loopback;
  }

  /** Lets both ends say HELLO. */
  async open(): Promise<void> {
    digest ??= await createPageDigest(...DIGEST_SEED);
    this.pump();
    if (this.#config.holdAnswers) this.answer();
  }

  /** Has the secondary hear a piece of the connection, and do what it is asked for. */
  tell(bytes: Uint8Array): void {
    this.#toSecondary.feed(bytes, 0, bytes.length, (b, start, end) => {
      return this.secondary.receive(b, start, end, this.now);
    });
    this.#secondaryActs();
  }

  /** What the secondary has said since the last call. */
  hear(): Uint8Array[] {
    return this.secondary.takeOutput();
  }

  /** Gives the primary a piece of QEMU's stream. */
  feed(bytes: Uint8Array): void {
    const joined = new Uint8Array(this.#unparsed.length + bytes.length);
    joined.set(this.#unparsed);
    joined.set(bytes, this.#unparsed.length);
    this.#unparsed = joined;
    this.#parse();
    this.pump();
    // Nothing of the stream goes on without them, also where a case withholds the ACKs.
    while (this.primary.awaitsDigests && this.answer()) this.pump();
  }

  #parse(): void {
    const bytes = this.#unparsed;
    this.#unparsed = bytes.slice(this.primary.receiveStream(bytes, 0, bytes.length, this.now));
  }

  /** Ends QEMU's stream. */
  end(): void {
    try {
      this.primary.endOfStream(this.#unparsed.length, this.now);
    } finally {
      this.pump();
    }
  }

  /** Lets time pass, as far as `now` says. */
  tick(): void {
    this.primary.tick(this.now);
    this.pump();
  }

  /** Lets time pass at both ends. */
  pass(ms: number): void {
    this.now += ms;
    this.said.push({ who: "time", now: this.now });
    this.primary.tick(this.now);
    this.secondary.tick(this.now);
    this.pump();
  }

  /** Lets everything that is said be heard. */
  pump(): void {
    do this.#take(); while (!this.#config.holdAnswers && this.answer());
  }

  /** Lets the primary hear what the secondary has said. @returns whether it said anything. */
  answer(count = Infinity): boolean {
    this.#held.push(...this.hear());
    const heard = this.#held.splice(0, count);
    const waited = this.primary.awaitsDigests;
    for (const bytes of heard) {
      this.answers.push(bytes);
      this.said.push({ who: "receiver", bytes });
      this.#listen("receiver", bytes);
      this.#toPrimary.feed(bytes, 0, bytes.length, (b, start, end) => {
        return this.primary.receivePeer(b, start, end, this.now);
      });
    }
    if (waited && !this.primary.awaitsDigests) this.#parse();
    this.#take();
    return heard.length > 0;
  }

  /** Takes what has come of what the primary was given, in the order that it says. */
  #take(): void {
    this.replies.push(...this.primary.takeReplies());
    this.primary.repliesGiven();
    for (const output of this.primary.takeOutput()) {
      const bytes = this.#config.tamper?.(output.slice()) ?? output.slice();
      this.wire.push(bytes);
      this.said.push({ who: "sender", bytes });
      this.#listen("sender", bytes);
      this.tell(bytes);
    }
    for (const event of this.primary.takeEvents()) {
      if (event.kind === "wants-digests") {
        this.primary.queryDigests(...DIGEST_SEED, digest!);
        this.#take();
      } else if (event.kind !== "ready") this.primaryEvents.push(event);
    }
  }

  /** QEMU's return path so far, in hex; nothing is left in it. */
  takeReplies(): string {
    const hex = this.replies.map((bytes) => bytes.toHex()).join(" ");
    this.replies.length = 0;
    return hex;
  }

  #secondaryActs(): void {
    for (const event of this.secondary.takeEvents()) {
      if (event.kind === "digest-query") {
        assert.deepEqual([event.seedLow, event.seedHigh], DIGEST_SEED);
        for (const _ of this.secondary.answerDigests(digest!));
      } else if (event.kind === "disk-query") {
        const answer = this.secondary.answerDiskQuery(event.query, event.copy, digest!);
        for (const waits of answer) waits?.(() => {});
      } else this.secondaryEvents.push(event);
    }
  }
}

/** All of a replica's state as one string: equal strings, equal replicas. */
export function fingerprint(replica: Replica): string {
  if (replica.committed === 0) return "nothing";
  const hash = createHash("sha256");
  for (const piece of replica.compose()) hash.update(piece);
  return `${replica.committed} ${hash.digest("hex")}`;
}

/** The stream that a replica composes, in one piece. */
export function composed(replica: Replica): Uint8Array {
  const pieces = [...replica.compose()];
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** What a VM that loads some streams would have: RAM, device state, description. */
export class LoadedVm {
  readonly pages = new Map<string, Uint8Array>();
  device: Uint8Array = new Uint8Array(0);
  vmdescription: Uint8Array = new Uint8Array(0);
  configuration: Uint8Array = new Uint8Array(0);
  #blocks: readonly { name: string; lengthBytes: number }[] = [];
  #parser: StreamParser;
  readonly #carry = new Carry();

  constructor() {
    this.#parser = new StreamParser({
      event: (event) => {
        if (event.kind === "configuration") this.configuration = event.configuration.raw;
        if (event.kind === "ram-blocks") this.#blocks = event.blocks;
        if (event.kind === "device-state" || event.kind === "checkpoint") this.device = event.state;
        if (event.kind === "vmdescription") this.vmdescription = event.json;
      },
      page: ({ kind, block, pageOffset, bytes, at, lengthBytes }) => {
        const key = `${this.#blocks[block].name} ${pageOffset}`;
        const content = bytes.slice(at, at + lengthBytes);
        if (kind === "page") return this.#put(key, content);
        if (kind === "fill" && content[0] === 0) return void this.pages.delete(key);
        const page = new Uint8Array(this.#parser.pageBytes);
        if (kind === "fill") return this.#put(key, page.fill(content[0]));
        page.set(this.pages.get(key) ?? []);
        applyDifference(content, page);
        this.#put(key, page);
      },
      mark: () => assert.fail("no marks"),
    });
  }

  load(bytes: Uint8Array): this {
    this.#carry.feed(bytes, 0, bytes.length, (b, start, end) => this.#parser.parse(b, start, end));
    return this;
  }

  /** Compares everything; pages of zeros count as not there. */
  equals(other: LoadedVm): void {
    assert.deepEqual(this.blockList, other.blockList);
    assert.deepEqual([...this.pages.keys()].sort(), [...other.pages.keys()].sort());
    for (const [key, page] of this.pages) {
      assert.ok(Buffer.compare(page, other.pages.get(key)!) === 0, `page ${key} differs`);
    }
    assert.deepEqual(this.device, other.device);
    assert.deepEqual(this.vmdescription, other.vmdescription);
    assert.deepEqual(this.configuration, other.configuration);
  }

  get blockList(): string {
    return JSON.stringify(this.#blocks);
  }

  #put(key: string, page: Uint8Array): void {
    if (page.findIndex((byte) => byte !== 0) >= 0) this.pages.set(key, page);
    else this.pages.delete(key);
  }
}

/** XBZRLE once more, by hand, so that a mistake in the decoder shows. */
function applyDifference(difference: Uint8Array, page: Uint8Array): void {
  let at = 0;
  let to = 0;
  const number = (): number => {
    let value = 0;
    for (let shift = 0;; shift += 7) {
      const byte = difference[at++];
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < difference.length) {
    to += number();
    for (let left = number(); left > 0; left--) page[to++] = difference[at++];
  }
}
