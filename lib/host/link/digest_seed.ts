/**
 * A seed for digests of a replica's pages, or of a disk's chunks: another one each time, so that
 * nobody can make pages that collide.
 */
export function digestSeed(): { readonly seedLow: number; readonly seedHigh: number } {
  const [seedLow, seedHigh] = crypto.getRandomValues(new Uint32Array(2));
  return { seedLow, seedHigh };
}
