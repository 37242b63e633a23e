import { createPageDigest, type PageDigest } from "../../replica/pages/page_digest.ts";
import type { Waits } from "../../replica/events/disk_digest.ts";
import type { Secondary, SecondaryEvent } from "../../replica/secondary/secondary.ts";
import { refuse } from "../../txn/wire_fault.ts";
import type { Reactor } from "../system/reactor.ts";

/** The queries of a sender. */
type Question = Extract<SecondaryEvent, { readonly kind: "digest-query" | "disk-query" }>;

/** Bytes that may wait to be written before more answers are computed. */
export const ANSWERS_PENDING_BYTES = 1 << 20;
/**
 * Bytes that a sender may leave unread before it is given up: with as many as 100,000 ACKs, it has not
 * read a single answer for long.
 */
export const MAX_UNREAD_BYTES = 1 << 21;

/**
 * @param offset Where the connection has been read to, for errors.
 * @throws {WireError} `too-large` if the sender leaves more unread than it may.
 */
export function checkUnread(pendingBytes: number, mostBytes: number, offset: number): void {
  if (pendingBytes <= mostBytes) return;
  refuse(offset, "too-large", `${pendingBytes} bytes of answers that the sender does not read`);
}

/**
 * Answers to a sender's queries, which are digests of pages or of a disk's chunks: computed a
 * little at a time, in the order of the queries.
 *
 * ```text
 * ready ──goOnSoon()──► due ──the loop's next turn──► ready
 *   └──sayMore(): the disk is read──► reading ──its answer──► ready
 * ```
 */
export class SessionAnswers {
  readonly #reactor: Reactor;
  readonly #secondary: Secondary;
  /** Computes more answers, and writes them. */
  readonly #pump: () => void;
  /** The answers that can be computed; more are being prepared. */
  readonly #answers: Generator<Waits | void>[] = [];
  #state: "ready" | "due" | "reading" = "ready";
  /** Settles when the answers to all queries so far are in {@link #answers}. */
  #preparing: Promise<void> = Promise.resolve();
  #diskDigest: { seedLow: number; seedHigh: number; digest: PageDigest } | undefined;

  /** @param pump Calls {@link sayMore}, and handles its errors. */
  constructor(reactor: Reactor, secondary: Secondary, pump: () => void) {
    this.#reactor = reactor;
    this.#secondary = secondary;
    this.#pump = pump;
  }

  /** A query has come. Its answer follows those before, however long a digest takes to be made. */
  ask(question: Question): void {
    this.#preparing = this.#preparing.then(() => this.#prepare(question)).then((answer) => {
      this.#answers.push(answer);
      this.#pump();
    }).catch((error) => this.#reactor.fail(error));
    // The digest comes from a task of the runtime: a sleeping loop does not see that.
    this.#reactor.wake();
  }

  /**
   * Computes and sends a little more of the first answer.
   *
   * @throws the disk's error.
   */
  sayMore(): void {
    while (this.#state !== "reading") {
      const next = this.#answers[0]?.next();
      if (next?.done) this.#answers.shift();
      if (typeof next?.value !== "function") return;
      // What the disk has in memory is here when the call returns: no need to wait.
      this.#state = "reading";
      let isLater = false;
      next.value(() => {
        this.#state = "ready";
        if (isLater) this.#pump();
      });
      isLater = true;
    }
  }

  /** Everything is written: goes on in the loop's next turn, if there is more. */
  goOnSoon(): void {
    if (this.#answers.length === 0 || this.#state !== "ready") return;
    this.#state = "due";
    this.#reactor.after(0, () => {
      if (this.#state === "due") this.#state = "ready";
      this.#pump();
    });
  }

  async #prepare(question: Question): Promise<Generator<Waits | void>> {
    if (question.kind === "digest-query") {
      const { seedLow, seedHigh } = question;
      return this.#secondary.answerDigests(await createPageDigest(seedLow, seedHigh));
    }
    const { query, copy } = question;
    return this.#secondary.answerDiskQuery(query, copy, await this.#diskDigestOf(query));
  }

  async #diskDigestOf(
    { seedLow, seedHigh }: { readonly seedLow: number; readonly seedHigh: number },
  ): Promise<PageDigest> {
    const known = this.#diskDigest;
    if (known?.seedLow === seedLow && known.seedHigh === seedHigh) return known.digest;
    const digest = await createPageDigest(seedLow, seedHigh);
    this.#diskDigest = { seedLow, seedHigh, digest };
    return digest;
  }
}
