import type { BenchExperiment } from "../lib/report/bench_result.ts";

/** How a sync link is limited: not at all, or as Ethernet of that speed. */
export type LinkRate = "none" | "1G" | "10G";

/** What the command line says about an experiment. */
export interface BenchSettings {
  /** Fewer and shorter samples: to see that it works, not to cite. */
  readonly quick: boolean;
  /** More and longer ones: every record size, larger files. Never with `quick`. */
  readonly full: boolean;
  /** Which links to measure over, where an experiment has one; its own choice if absent. */
  readonly links?: readonly LinkRate[];
  /** How often everything is measured, where an experiment has rounds. */
  readonly rounds?: number;
  /** How long one stretch is measured. */
  readonly seconds?: number;
  /** Whether the link is encrypted, where an experiment has one. */
  readonly key?: boolean;
  /** How many checkpoints a soak makes. */
  readonly checkpoints?: number;
  /** iozone's file, and its records, in bytes. */
  readonly fileBytes?: number;
  readonly recordBytes?: readonly number[];
}

/** What every experiment is handed. */
export interface BenchContext extends BenchSettings {
  readonly signal: AbortSignal;
  /** Says what is going on. */
  say(text: string): void;
  /**
   * Says how far an experiment is, with an estimate of what is left.
   *
   * @param done Steps of about one length that are behind it; the first call says 0.
   */
  progress(name: string, done: number, total: number, what: string): void;
  /**
   * Hands in what there is so far, with `partial` saying how far that is: kept when the rest is
   * interrupted or fails. Each call replaces the one before.
   */
  keep(soFar: BenchExperiment & { readonly partial: string }): void;
}
