/** What every experiment is handed. */
export interface BenchContext {
  /** Fewer and shorter samples: to see that it works, not to cite. */
  readonly quick: boolean;
  readonly signal: AbortSignal;
  /** Says what is going on. */
  say(text: string): void;
}
