import { createPageDigest, type PageDigest } from "../../replica/pages/page_digest.ts";
import type { Waits } from "../../replica/events/disk_digest.ts";
import type { Secondary, SecondaryEvent } from "../../replica/secondary/secondary.ts";
import type { Reactor } from "../system/reactor.ts";

/** What a sender may ask. */
type Question = Extract<SecondaryEvent, { readonly kind: "digest-query" | "disk-query" }>;

/**
 * What a sender has asked for and still waits for, digests of pages or of a disk's chunks: computed a
 * little at a time, in the order of the questions.
 *
 * ```text
 * ready ──goOnSoon()──► due ──the loop's next turn──► ready
 *   └──sayMore(): the disk is read──► reading ──its answer──► ready
 * ```
 */
export class SessionAnswers {
  readonly #reactor: Reactor;
  readonly #secondary: Secondary;
  /** Says more, and writes what was said. */
  readonly #pump: () => void;
  /** Answers that can be given; more are being prepared. */
  readonly #answers: Generator<Waits | void>[] = [];
  #state: "ready" | "due" | "reading" = "ready";
  /** Done when the answers to all questions so far are in {@link #answers}. */
  #preparing: Promise<void> = Promise.resolve();
  #diskDigest: { seedLow: number; seedHigh: number; digest: PageDigest } | undefined;

  /** @param pump Calls {@link sayMore}; what that throws is its to deal with. */
  constructor(reactor: Reactor, secondary: Secondary, pump: () => void) {
    this.#reactor = reactor;
    this.#secondary = secondary;
    this.#pump = pump;
  }

  /** A question has come. Its answer comes behind those before, however long a digest takes to be made. */
  ask(question: Question): void {
    this.#preparing = this.#preparing.then(() => this.#prepare(question)).then((answer) => {
      this.#answers.push(answer);
      this.#pump();
    }).catch((error) => this.#reactor.fail(error));
    // The digest comes from the runtime, which the loop may sleep without.
    this.#reactor.wake();
  }

  /**
   * Computes and says a little more of the first answer that is due.
   *
   * @throws what the disk fails with.
   */
  sayMore(): void {
    while (this.#state !== "reading") {
      const next = this.#answers[0]?.next();
      if (next?.done) this.#answers.shift();
      if (typeof next?.value !== "function") return;
      // What the disk has at hand is here when the call returns, and keeps nobody waiting.
      this.#state = "reading";
      let isLater = false;
      next.value(() => {
        this.#state = "ready";
        if (isLater) this.#pump();
      });
      isLater = true;
    }
  }

  /** All that was said is written: goes on in the loop's next turn, if there is more to say. */
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
