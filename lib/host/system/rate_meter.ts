/** A count's rate over the last seconds. */
export class RateMeter {
  readonly #windowMs: number;
  #samples: { at: number; count: number }[] = [];

  constructor(windowMs = 2000) {
    this.#windowMs = windowMs;
  }

  /** Notes the count at this moment; to be called several times within the window. */
  update(count: number): void {
    const at = performance.now();
    this.#samples.push({ at, count });
    while (this.#samples.length > 2 && at - this.#samples[1].at >= this.#windowMs) {
      this.#samples.shift();
    }
  }

  get perSecond(): number {
    const first = this.#samples[0];
    const last = this.#samples.at(-1);
    if (first === undefined || last === undefined || last.at === first.at) return 0;
    return (last.count - first.count) * 1000 / (last.at - first.at);
  }
}
