import type { RamBlock } from "../../qemu/wire.ts";
import { DigestAnswer } from "../pages/digest_answer.ts";
import type { DigestTable, PageDigest } from "../pages/page_digest.ts";

/** Digests of the replica's pages, as the secondary has sent them. */
export interface ReplicaDigests {
  readonly table: DigestTable;
  /** Computes digests under the seed that the table was made with. */
  readonly digest: PageDigest;
}

type State =
  | { readonly at: "idle" }
  /** The owner of the primary has been told, and makes a seed and a digest. */
  | { readonly at: "wanted"; readonly answer: DigestAnswer }
  | { readonly at: "asked"; readonly answer: DigestAnswer; readonly digest: PageDigest };

/**
 * Has the secondary tell the digests of its replica's pages before a full stream's pages are sent.
 *
 * ```text
 * idle ──want()──► wanted ──ask()──► asked ──the answer's last part──► idle
 * ```
 */
export class DigestExchange {
  #state: State = { at: "idle" };

  /** True from {@link want} until the answer is complete: QEMU's stream has to wait. */
  get isPending(): boolean {
    return this.#state.at !== "idle";
  }

  /** @param blocks The VM's RAM: what is told of any other is of no use. */
  want(blocks: readonly RamBlock[], pageBytes: number): void {
    this.#state = { at: "wanted", answer: new DigestAnswer(blocks, pageBytes) };
  }

  /** The query is sent. @param digest Computes digests under the same seed. */
  ask(digest: PageDigest): void {
    if (this.#state.at === "wanted") this.#state = { ...this.#state, at: "asked", digest };
  }

  /**
   * Takes a part of the answer.
   *
   * @returns `more`; or with the last part all of it, or `other` for a replica of other RAM blocks.
   */
  receive(payload: Uint8Array, last: boolean): ReplicaDigests | "more" | "other" {
    if (this.#state.at !== "asked") return "more";
    const { answer, digest } = this.#state;
    answer.receive(payload);
    if (!last) return "more";
    this.#state = { at: "idle" };
    return answer.table === undefined ? "other" : { table: answer.table, digest };
  }
}
