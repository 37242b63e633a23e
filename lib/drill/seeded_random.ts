/** Random moments that can be repeated. */

/**
 * A sequence of numbers from a seed (mulberry32): the same seed gives the same moments. What the VM
 * does at those moments still varies.
 */
export class SeededRandom {
  #state: number;

  /** @param seed A whole number, of which the low 32 bits are used. */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** At least 0, less than `limit`. */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * limit;
  }

  /** A random element of a list. */
  pick<T>(choices: readonly T[]): T {
    return choices[Math.floor(this.below(choices.length))];
  }
}
