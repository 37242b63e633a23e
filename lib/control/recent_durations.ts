import { anyNumber, listOf, record } from "./shape.ts";

/** Percentiles of durations, in milliseconds. */
export interface LatencySummary {
  readonly count: number;
  readonly p50: number;
  readonly p99: number;
  readonly max: number;
}

export const latencySummary = record<LatencySummary>({
  count: anyNumber,
  p50: anyNumber,
  p99: anyNumber,
  max: anyNumber,
});

/** The last durations: a reader that knows an earlier `count` knows which of them are newer. */
export interface RecentDurations {
  readonly count: number;
  readonly ms: readonly number[];
}

export const recentDurations = record<RecentDurations>({ count: anyNumber, ms: listOf(anyNumber) });
