import type { BenchExperiment } from "../lib/report/bench_result.ts";

/** The limit of a sync link: none, or that of Ethernet of this speed. */
export type LinkRate = "none" | "1G" | "10G";

/** An experiment's settings from the command line. */
export interface BenchSettings {
  /** Fewer and shorter samples: for checking that the experiment works, not for citing. */
  readonly quick: boolean;
  /** More and longer samples: every record size, larger files. Never with `quick`. */
  readonly full: boolean;
  /**
   * The links to measure over, for experiments with a link; the experiment's own choice if absent.
   */
  readonly links?: readonly LinkRate[];
  /** How often everything is measured, for experiments with rounds. */
  readonly rounds?: number;
  /** The length of each measurement. */
  readonly seconds?: number;
  /** Whether the link is encrypted, for experiments with a link. */
  readonly key?: boolean;
  /** How many checkpoints a soak makes. */
  readonly checkpoints?: number;
  /** iozone's file, and its records, in bytes. */
  readonly fileBytes?: number;
  readonly recordBytes?: readonly number[];
}

/** What every experiment gets. */
export interface BenchContext extends BenchSettings {
  readonly signal: AbortSignal;
  /** Reports the current step to the user. */
  say(text: string): void;
  /**
   * Reports the progress of an experiment, with an estimate of the remaining time.
   *
   * @param done Completed steps, of about equal length; 0 in the first call.
   */
  progress(name: string, done: number, total: number, what: string): void;
  /**
   * Hands in the results so far; `partial` says how far they go. They are kept if the rest is
   * interrupted or fails. Each call replaces the results of the call before.
   */
  keep(soFar: BenchExperiment & { readonly partial: string }): void;
}
