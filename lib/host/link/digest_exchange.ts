import { randomBytes } from "node:crypto";
import { createPageDigest, DigestTable, type PageDigest } from "../../replica/page_digest.ts";
import type { Primary } from "../../replica/primary.ts";

/**
 * Has the secondary tell the digests of its replica's pages before a full stream, see
 * `Primary.wantsDigests`: under a seed of its own each time, so that nobody can make pages for it
 * that collide.
 */
export class DigestExchange {
  readonly #primary: Primary;
  #pending = false;
  #digest: PageDigest | undefined;
  #table = new DigestTable();
  #blocks = new Map<string, number>();

  constructor(primary: Primary) {
    this.#primary = primary;
  }

  /** True from {@link begin} until the primary has them: QEMU's stream has to wait. */
  get pending(): boolean {
    return this.#pending;
  }

  /** @param ask Is called with the seed, once digests can be computed here too. */
  async begin(ask: (seedLow: number, seedHigh: number) => void): Promise<void> {
    this.#pending = true;
    this.#table = new DigestTable();
    this.#blocks = new Map();
    const [seedLow, seedHigh] = new Uint32Array(randomBytes(8).buffer.slice(0, 8));
    this.#digest = await createPageDigest(seedLow, seedHigh);
    ask(seedLow, seedHigh);
  }

  /** Takes a part of the answer; with the last one the primary has all of it. */
  receive(payload: Uint8Array, last: boolean): void {
    this.#table.receive(payload, this.#blocks);
    if (!last) return;
    this.#primary.setDigests(this.#table, this.#blocks, this.#digest!);
    this.#pending = false;
  }
}
