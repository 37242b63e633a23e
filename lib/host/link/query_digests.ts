import { createPageDigest, type PageDigest } from "../../replica/page_digest.ts";

/** What a question's digests are computed with. */
interface Seed {
  readonly seedLow: number;
  readonly seedHigh: number;
}

/** Makes digests for questions, which mostly come with the seed of the one before. */
export class QueryDigests {
  #known: { readonly seed: Seed; readonly digest: PageDigest } | undefined;

  async of(seed: Seed): Promise<PageDigest> {
    const known = this.#known;
    if (known?.seed.seedLow === seed.seedLow && known.seed.seedHigh === seed.seedHigh) {
      return known.digest;
    }
    const digest = await createPageDigest(seed.seedLow, seed.seedHigh);
    this.#known = { seed, digest };
    return digest;
  }
}
