/** For tests: one secondary, and made-up senders that come one after another. */
import assert from "node:assert/strict";
import { Carry } from "../../bytes/carry.ts";
import { KemariError, StateError } from "../../errors.ts";
import { frameName } from "../../txn/frame_rules.ts";
import { FrameCutter } from "../../txn/testing/end_model.ts";
import { NACK_REASON, type NackReason } from "../../txn/wire.ts";
import { SecondaryTaps } from "../events/secondary_taps.ts";
import { createPageDigest, type PageDigest } from "../pages/page_digest.ts";
import { Replica } from "../secondary/replica.ts";
import { Secondary } from "../secondary/secondary.ts";
import { FakeDisk } from "./fake_disk.ts";
import { MadeUpSender } from "./made_up_sender.ts";
import { Random } from "./random.ts";

const DISK_BYTES = 4 * 4096;
const MAX_TRANSACTION_BYTES = 256 * 1024;
/** Frames of one session, at the most. */
const MAX_FRAMES = 400;
/** What a receiver may have to say without having been asked for much. */
const MAX_ANSWER_BYTES = 8 * 2 ** 20;

/** What the sessions came to. */
export interface FuzzCounts {
  sessions: number;
  frames: number;
  commits: number;
  refusals: number;
  /** Sessions that ended in order. */
  ends: number;
}

/** A replica that lives through many sessions. */
export class FuzzedSecondary {
  readonly counts: FuzzCounts = { sessions: 0, frames: 0, commits: 0, refusals: 0, ends: 0 };
  readonly #random: Random;
  readonly #digest: PageDigest;
  #replica!: Replica;

  private constructor(seed: number, digest: PageDigest) {
    this.#random = new Random(seed);
    this.#digest = digest;
    this.#renew();
  }

  static async make(seed: number): Promise<FuzzedSecondary> {
    return new FuzzedSecondary(seed, await createPageDigest(11, 22));
  }

  #renew(): void {
    const copy = new FakeDisk(DISK_BYTES);
    const disk = { mode: "replicated", sizeBytes: DISK_BYTES, copy } as const;
    const taps = new SecondaryTaps(new Map([["disk0", disk]]), new Set(["net0"]));
    this.#replica = new Replica(MAX_TRANSACTION_BYTES, undefined, taps);
  }

  /**
   * Carries one made-up session out.
   *
   * @throws {AssertionError} if the secondary does what the table forbids, or breaks.
   */
  session(): void {
    const random = this.#random;
    // Once a VM was given away, another one's replica begins.
    if (random.once(20)) this.#renew();
    const replica = this.#replica;
    let now = 0;
    const counters = { committed: 0, pages: 0, zeroPages: 0, payloadBytes: 0, lastPayloadBytes: 0 };
    const secondary = new Secondary(
      replica,
      counters,
      {
        heartbeatMs: 1000,
        graceMs: 5000,
        maxTransactionBytes: MAX_TRANSACTION_BYTES,
        committed: replica.committed,
        software: "fuzzed",
        takesInputs: true,
      },
      now,
      () => now,
    );
    const sender = new MadeUpSender(random, replica.committed, {
      disk: "disk0",
      diskBytes: DISK_BYTES,
      net: "net0",
    });
    const carry = new Carry();
    const cutter = new FrameCutter();
    let nack: number | undefined;
    const answer = () => {
      let answerBytes = 0;
      for (const event of secondary.takeEvents()) {
        if (event.kind === "digest-query") {
          for (const _ of secondary.answerDigests(this.#digest));
        } else if (event.kind === "disk-query") {
          const answers = secondary.answerDiskQuery(event.query, event.copy, this.#digest);
          for (const waits of answers) waits?.(() => {});
        } else if (event.kind === "committed") this.counts.commits++;
      }
      for (const bytes of secondary.takeOutput()) {
        answerBytes += bytes.length;
        for (const { header, payload } of cutter.push(bytes)) {
          assert.equal(nack, undefined, "a NACK is the last word");
          if (frameName(header.command) === "NACK") nack = payload[0] << 8 | payload[1];
        }
        sender.heard(bytes);
      }
      assert.ok(answerBytes < MAX_ANSWER_BYTES, `${answerBytes} bytes of answers to one frame`);
    };
    this.counts.sessions++;
    let wasNoise = false;
    for (let i = 0; i < MAX_FRAMES; i++) {
      const { name, bytes, verdict } = sender.next();
      this.counts.frames++;
      const before = replica.committed;
      let error: unknown;
      try {
        this.#give(carry, secondary, bytes, now);
      } catch (cause) {
        error = cause;
      }
      if (error !== undefined) assertExpected(error, name);
      answer();
      assert.ok(replica.committed === before || replica.committed === before + 1);
      if (error !== undefined) {
        this.counts.refusals++;
        assert.notEqual(nack, undefined, `${name} was refused without a word: ${error}`);
        if (verdict.is === "refused" && !wasNoise) assertReason(nack!, verdict.nack, name);
        if (!wasNoise) assert.notEqual(verdict.is, "passed over", `${name} was refused: ${error}`);
        break;
      }
      // The rest of it may be on its way.
      wasNoise ||= name === "noise" || verdict.is === "unknown";
      if (!wasNoise) assert.notEqual(verdict.is, "refused", `${name} was taken`);
      if (verdict.is === "passed over") {
        this.counts.ends++;
        if (random.once(2)) break;
      }
      now += random.below(30);
      secondary.tick(now);
      answer();
      if (nack !== undefined) break;
    }
    secondary.abort();
    // What was committed can be given to a QEMU, whatever came.
    if (replica.committed > 0 && replica.taps.unfit === undefined) {
      for (const _ of replica.compose());
    }
  }

  #give(carry: Carry, secondary: Secondary, bytes: Uint8Array, now: number): void {
    const random = this.#random;
    for (let at = 0; at < bytes.length;) {
      const end = random.once(3) ? Math.min(bytes.length, at + 1 + random.below(40)) : bytes.length;
      carry.feed(bytes.slice(at, end), 0, end - at, (b, s, e) => secondary.receive(b, s, e, now));
      at = end;
    }
  }
}

/** Whatever comes, what is thrown is an error about what came, and none of ours. */
function assertExpected(error: unknown, name: string): void {
  if (error instanceof KemariError && !(error instanceof StateError)) return;
  throw new assert.AssertionError({
    message: `${name} made the secondary break: ${(error as Error).stack}`,
  });
}

function assertReason(found: number, expected: NackReason, name: string): void {
  const word = (Object.keys(NACK_REASON) as NackReason[]).find((key) => NACK_REASON[key] === found);
  assert.equal(word, expected, `the reason for which ${name} was refused`);
}
