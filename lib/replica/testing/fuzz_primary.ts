/** For tests: primaries, and a receiver for each that a seed makes up. */
import assert from "node:assert/strict";
import { Carry } from "../../bytes/carry.ts";
import { KemariError, StateError, TransportError } from "../../errors.ts";
import { checkpoint, fullStream, page } from "../../qemu/testing/synthetic_stream.ts";
import { encodeHeader, type FrameHeader } from "../../txn/frame_header.ts";
import { FRAME_RULES, type FrameName } from "../../txn/frame_rules.ts";
import { encodeHello, FEATURE, PROTOCOL_VERSION } from "../../txn/hello.ts";
import { EndModel, FrameCutter, type WholeFrame } from "../../txn/testing/end_model.ts";
import { TXN } from "../../txn/wire.ts";
import { createPageDigest, type PageDigest } from "../pages/page_digest.ts";
import { Primary } from "../primary/primary.ts";
import type { FuzzCounts } from "./fuzz_secondary.ts";
import { Random } from "./random.ts";
import { ScriptedTaps } from "./scripted_taps.ts";

const NAMES = Object.keys(TXN) as FrameName[];
/** Turns of one session, at the most. */
const MAX_TURNS = 300;

/** Carries made-up sessions out, one after another. */
export class FuzzedPrimary {
  readonly counts: FuzzCounts = { sessions: 0, frames: 0, commits: 0, refusals: 0, ends: 0 };
  readonly #random: Random;
  readonly #digest: PageDigest;

  private constructor(seed: number, digest: PageDigest) {
    this.#random = new Random(seed);
    this.#digest = digest;
  }

  static async make(seed: number): Promise<FuzzedPrimary> {
    return new FuzzedPrimary(seed, await createPageDigest(11, 22));
  }

  /**
   * One session.
   *
   * @throws {AssertionError} if the primary does what the table forbids, or breaks.
   */
  session(): void {
    this.counts.sessions++;
    new OneSession(this.#random, this.#digest, this.counts).run();
  }
}

class OneSession {
  readonly #random: Random;
  readonly #digest: PageDigest;
  readonly #counts: FuzzCounts;
  readonly #primary: Primary;
  readonly #model = new EndModel("sender");
  readonly #cutter = new FrameCutter();
  readonly #carry = new Carry();
  readonly #session: Uint8Array;
  readonly #committed: number;
  readonly #isPlain: boolean;
  #now = 0;
  #unparsed: Uint8Array = new Uint8Array(0);
  #fed = 0;
  /** An ACK of the handover was said. */
  #mayBeGiven = false;

  constructor(random: Random, digest: PageDigest, counts: FuzzCounts) {
    this.#random = random;
    this.#digest = digest;
    this.#counts = counts;
    this.#session = random.bytes(16);
    this.#committed = random.once(3) ? random.below(50) : 0;
    this.#isPlain = random.once(3);
    this.#primary = new Primary(
      {
        commit: random.pick(["sync", "async"]),
        stream: this.#isPlain ? "plain" : "colo",
        maxInFlightBytes: 1e6,
        taps: random.once(2) ? new ScriptedTaps() : undefined,
      },
      { session: this.#session, heartbeatMs: 1000, graceMs: 5000, software: "fuzzed" },
      0,
      () => this.#now,
    );
  }

  run(): void {
    this.#take();
    for (let turn = 0; turn < MAX_TURNS; turn++) {
      const frame = this.#random.once(3) ? undefined : this.#frame();
      const verdict = frame && this.#judge(frame);
      let error: unknown;
      try {
        if (frame === undefined) this.#feed();
        else this.#give(frame);
        this.#take();
      } catch (cause) {
        error = cause;
      }
      if (error === undefined) {
        assert.notEqual(verdict, "refused", `${frame && nameOf(frame)} was taken`);
        if (verdict === "passed over") {
          this.#counts.ends++;
          return;
        }
        continue;
      }
      const isOurs = !(error instanceof KemariError) || error instanceof StateError;
      if (isOurs) throw error;
      // A loss is told by a clock, and what the peer says by an error about what came.
      if (!(error instanceof TransportError)) this.#counts.refusals++;
      if (frame !== undefined) assert.notEqual(verdict, "passed over", `refused: ${error}`);
      return;
    }
  }

  /** What the table says of a frame; what its payload does to a sender is not the table's. */
  #judge(frame: WholeFrame): string {
    try {
      return this.#model.hears(frame).is;
    } catch {
      return "unknown";
    }
  }

  #give({ header, payload }: WholeFrame): void {
    const random = this.#random;
    this.#counts.frames++;
    const all = new Uint8Array([...encodeHeader(header), ...payload]);
    for (let at = 0; at < all.length;) {
      const end = random.once(3) ? Math.min(all.length, at + 1 + random.below(40)) : all.length;
      this.#carry.feed(all.slice(at, end), 0, end - at, (b, s, e) => {
        return this.#primary.receivePeer(b, s, e, this.#now);
      });
      at = end;
    }
  }

  /** QEMU says something, or time passes. */
  #feed(): void {
    const random = this.#random;
    this.#now += random.below(50);
    this.#primary.tick(this.#now);
    const { state } = this.#model.standing;
    if (state === "leaving" || state === "done") return;
    if (random.once(50) && this.#primary.leave({ reason: "goes-on", text: "" })) return;
    // QEMU is told to begin when the secondary has said who it is.
    if (this.#primary.peer === undefined || this.#primary.awaitsDigests) return;
    if (this.#unparsed.length === 0) {
      if (this.#isPlain && this.#fed > 0) {
        if (this.#fed++ === 1) this.#primary.endOfStream(0, this.#now);
        return;
      }
      this.#unparsed = this.#fed++ === 0
        ? fullStream(1)
        : checkpoint(this.#fed % 200, page(random.below(8), random.below(200), "pc.ram"));
    }
    const bytes = this.#unparsed;
    const end = random.once(2) ? bytes.length : random.below(bytes.length + 1);
    const taken = this.#primary.receiveStream(bytes, 0, end, this.#now);
    this.#unparsed = bytes.slice(taken);
  }

  /** Takes what has come of it, in the order that the primary says. */
  #take(): void {
    this.#primary.takeReplies();
    this.#primary.repliesGiven();
    for (const bytes of this.#primary.takeOutput()) {
      for (const frame of this.#cutter.push(bytes)) {
        const { state } = this.#model.standing;
        const places: readonly string[] = FRAME_RULES[nameOf(frame)].sentIn.sender ?? [];
        assert.ok(places.includes(state), `${nameOf(frame)} was said while ${state}`);
        this.#model.says(frame);
      }
    }
    for (const event of this.#primary.takeEvents()) {
      if (event.kind === "committed") this.#counts.commits++;
      if (event.kind === "handed-over") assert.ok(this.#mayBeGiven, "given away without an ACK");
      if (event.kind === "wants-digests") {
        this.#primary.queryDigests(11, 22, this.#digest);
        this.#take();
      }
    }
  }

  /** What the receiver says next: mostly what is its turn. */
  #frame(): WholeFrame {
    const random = this.#random;
    const { state, acknowledged, transaction, waiting } = this.#model.standing;
    const due: FrameName[] = state === "hello" ? ["HELLO"] : ["HEARTBEAT"];
    if (waiting.includes("COMMIT")) due.push("ACK", "ACK", "ACK");
    if (waiting.includes("DIGEST_QUERY")) due.push("DIGEST", "DIGEST");
    if (waiting.includes("DISK_QUERY")) due.push("DISK_DIGEST");
    if (state === "leaving") due.push("LEFT");
    if (state === "handover") due.push("ACK");
    const name = random.once(80) ? random.pick(NAMES) : random.pick(due);
    if (name === "ACK" && state === "handover") this.#mayBeGiven = true;
    const payload = this.#payload(name);
    const isAck = name === "ACK";
    const header: FrameHeader = {
      command: TXN[name],
      flags: name === "DIGEST" || name === "DISK_DIGEST" ? random.below(2) : 0,
      sequence: random.once(300) ? 1 : 0,
      transaction: !isAck ? 0 : state === "handover" ? transaction : acknowledged + 1,
      lengthBytes: payload.length,
    };
    if (!random.once(100)) return { header, payload };
    const changes: readonly Partial<FrameHeader>[] = [
      { flags: header.flags ^ 1 << random.below(8) },
      { transaction: header.transaction + 1 },
      { command: random.below(30) },
    ];
    return { header: { ...header, ...random.pick(changes) }, payload };
  }

  #payload(name: FrameName): Uint8Array {
    const random = this.#random;
    if (name === "HELLO") {
      const all = Object.values(FEATURE).reduce((bits, bit) => bits | bit, 0);
      return encodeHello({
        version: PROTOCOL_VERSION,
        features: random.once(3) ? random.below(all + 1) : all,
        session: random.once(50) ? random.bytes(16) : this.#session,
        heartbeatMs: random.below(2000),
        graceMs: random.below(5000),
        committed: this.#committed,
        maxTransactionBytes: random.once(5) ? random.below(50_000) : 0,
        software: "made up",
      });
    }
    const [least, most] = FRAME_RULES[name].bytes;
    if (name === "DIGEST" && !random.once(20)) return new Uint8Array(0);
    return random.bytes(least + random.below(Math.min(most - least, 60) + 1));
  }
}

function nameOf({ header }: WholeFrame): FrameName {
  return NAMES.find((name) => TXN[name] === header.command) ?? "HELLO";
}
