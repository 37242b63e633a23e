/** How the words of a command line become durations, sizes and counts. */
import { UsageError } from "../../errors.ts";

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
