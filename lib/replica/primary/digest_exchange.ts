import { DigestTable, type PageDigest } from "../pages/page_digest.ts";

/** Digests of the replica's pages, as the secondary has sent them. */
interface ReplicaDigests {
  readonly table: DigestTable;
  /** Page count by block name. */
  readonly pages: ReadonlyMap<string, number>;
  /** Computes digests under the seed that the table was made with. */
  readonly digest: PageDigest;
}

type State =
  | { readonly at: "idle" }
  /** The owner of the primary has been told, and makes a seed and a digest. */
  | { readonly at: "wanted" }
  | {
    readonly at: "asked";
    readonly table: DigestTable;
    readonly pages: Map<string, number>;
    readonly digest: PageDigest;
  };

/**
 * Gets the digests of the replica's pages from the secondary before a full stream.
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

  want(): void {
    this.#state = { at: "wanted" };
  }

  /** The query is sent. @param digest Computes digests under the same seed. */
  ask(digest: PageDigest): void {
    this.#state = { at: "asked", table: new DigestTable(), pages: new Map(), digest };
  }

  /** Takes a part of the answer. @returns The whole answer, with the last part. */
  receive(payload: Uint8Array, last: boolean): ReplicaDigests | undefined {
    const state = this.#state;
    if (state.at !== "asked") return undefined;
    state.table.receive(payload, state.pages);
    if (!last) return undefined;
    this.#state = { at: "idle" };
    return state;
  }
}
