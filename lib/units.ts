/** Sizes, durations, rates and shares: as people read them, and as a command line says them. */
import { UsageError } from "./errors.ts";

/** A size for people, in binary units. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value >= 100 || unit === 0 ? value.toFixed(0) : value.toFixed(1)} ${units[unit]}`;
}

/** A size in millions of bytes, as downloads and results have it: `12.3 MB`. */
export function formatMegabytes(bytes: number, digits = 0): string {
  return `${(bytes / 1e6).toFixed(digits)} MB`;
}

/** A duration to the millisecond: `738 ms`. */
export function formatWholeMs(durationMs: number): string {
  return `${durationMs.toFixed(0)} ms`;
}

/** A measured duration: `2.31 ms`, and from 10 ms on `12.3 ms`. */
export function formatMs(durationMs: number): string {
  return `${durationMs.toFixed(durationMs < 10 ? 2 : 1)} ms`;
}

/** How long something took or is ago: `850 ms`, and from a second on `1.5 s`. */
export function formatAge(durationMs: number): string {
  return durationMs < 1000 ? formatWholeMs(durationMs) : `${(durationMs / 1000).toFixed(1)} s`;
}

/**
 * A duration that people wait for.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(formatWait(42_000), "42 s");
 * assert.equal(formatWait(250_000), "4 min");
 * assert.equal(formatWait(9_000_000), "2.5 h");
 * ```
 */
export function formatWait(durationMs: number): string {
  const seconds = Math.round(durationMs / 1000);
  if (seconds < 100) return `${seconds} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** The middle and the tail of measured durations: `p50 2.31 ms, p99 7.40 ms`. */
export function formatPercentiles(p50Ms: number, p99Ms: number): string {
  return `p50 ${p50Ms.toFixed(2)} ms, p99 ${p99Ms.toFixed(2)} ms`;
}

/** How often something happens: `12.3/s`. */
export function formatRate(perSecond: number): string {
  return `${perSecond.toFixed(1)}/s`;
}

/** A share of a whole, from 0 to 1: `12.3 %`. */
export function formatShare(share: number, digits = 1): string {
  return `${(100 * share).toFixed(digits)} %`;
}

const MS_PER_UNIT: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** The longest timer that a runtime keeps: 2³¹−1 ms, 24 days. */
const MAX_DURATION_MS = 2 ** 31 - 1;

/**
 * Reads a duration: `50` and `50ms` are milliseconds, `2s`, `1.5m` and `1h` say their unit.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseDurationMs("2s"), 2000);
 * ```
 *
 * @returns Whole milliseconds, at least 1.
 * @throws {UsageError} Not a duration, shorter than a millisecond, or longer than 24 days.
 */
export function parseDurationMs(text: string): number {
  const parts = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim());
  const durationMs = parts ? Math.round(Number(parts[1]) * MS_PER_UNIT[parts[2] ?? "ms"]) : NaN;
  if (durationMs >= 1 && durationMs <= MAX_DURATION_MS) return durationMs;
  throw new UsageError(`"${text}" is not a duration between 1ms and 24 days`, {
    hint: 'Write milliseconds ("50", "50ms"), seconds ("2s"), minutes ("1m") or hours ("1h")',
  });
}

const SIZE_UNITS = "KMGT";

/**
 * Reads a size in bytes, with binary units as QEMU's: `64M` and `64MiB` are 64·2²⁰.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseSizeBytes("64M"), 64 * 1024 * 1024);
 * ```
 *
 * @returns Whole bytes, at least 1.
 * @throws {UsageError} Not a size, zero, or beyond 2⁵³.
 */
export function parseSizeBytes(text: string): number {
  const parts = /^(\d+(?:\.\d+)?)(?:([KMGT])(?:i?B)?|B)?$/i.exec(text.trim());
  const power = parts?.[2] ? SIZE_UNITS.indexOf(parts[2].toUpperCase()) + 1 : 0;
  const sizeBytes = parts ? Math.round(Number(parts[1]) * 1024 ** power) : NaN;
  if (sizeBytes >= 1 && Number.isSafeInteger(sizeBytes)) return sizeBytes;
  throw new UsageError(`"${text}" is not a size`, {
    hint: 'Write bytes ("4096") or a binary unit ("64K", "64M", "2G", "1T")',
  });
}

/**
 * Reads a count: digits only, at least 1.
 *
 * @throws {UsageError} Anything else.
 */
export function parseCount(text: string): number {
  const count = /^\d+$/.test(text.trim()) ? Number(text) : NaN;
  if (count >= 1 && Number.isSafeInteger(count)) return count;
  throw new UsageError(`"${text}" is not a whole number of 1 or more`);
}
