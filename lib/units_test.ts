import assert from "node:assert/strict";
import fc from "fast-check";
import { UsageError } from "./errors.ts";
import {
  formatAge,
  formatBytes,
  formatMegabytes,
  formatMs,
  formatPercentiles,
  formatRate,
  formatShare,
  formatWait,
  formatWholeMs,
  parseCount,
  parseDurationMs,
  parseSizeBytes,
} from "./units.ts";

const texts: readonly (readonly [string, string])[] = [
  [formatBytes(0), "0 B"],
  [formatBytes(1023), "1023 B"],
  [formatBytes(1536), "1.5 KiB"],
  [formatBytes(150 * 2 ** 20), "150 MiB"],
  [formatBytes(5000 * 2 ** 40), "5000 TiB"],
  [formatMegabytes(12_345_678), "12 MB"],
  [formatMegabytes(12_345_678, 1), "12.3 MB"],
  [formatWholeMs(737.6), "738 ms"],
  [formatMs(2.314), "2.31 ms"],
  [formatMs(12.34), "12.3 ms"],
  [formatAge(999), "999 ms"],
  [formatAge(1500), "1.5 s"],
  [formatWait(99_000), "99 s"],
  [formatWait(100_000), "2 min"],
  [formatWait(9_000_000), "2.5 h"],
  [formatPercentiles(2.314, 7.4), "p50 2.31 ms, p99 7.40 ms"],
  [formatRate(12.34), "12.3/s"],
  [formatShare(0.1234), "12.3 %"],
  [formatShare(0.1234, 0), "12 %"],
];
for (const [text, wanted] of texts) {
  Deno.test(`for people: ${wanted}`, () => assert.equal(text, wanted));
}

const durations: readonly (readonly [string, number])[] = [
  ["50", 50],
  ["50ms", 50],
  ["2s", 2000],
  ["1.5s", 1500],
  ["1m", 60_000],
  ["1h", 3_600_000],
  [" 7 ", 7],
  ["0.6ms", 1],
  ["596h", 2_145_600_000],
];
for (const [text, durationMs] of durations) {
  Deno.test(`the duration "${text}" is ${durationMs} ms`, () => {
    assert.equal(parseDurationMs(text), durationMs);
  });
}

const sizes: readonly (readonly [string, number])[] = [
  ["1", 1],
  ["4096B", 4096],
  ["64K", 65536],
  ["64k", 65536],
  ["1.5M", 1572864],
  ["64MiB", 67108864],
  ["2G", 2147483648],
  ["2GB", 2147483648],
  ["8T", 8796093022208],
];
for (const [text, sizeBytes] of sizes) {
  Deno.test(`the size "${text}" is ${sizeBytes} bytes`, () => {
    assert.equal(parseSizeBytes(text), sizeBytes);
  });
}

const refused = ["", " ", "-1", "0", "0s", "0K", "1e3", "1 s", "s", "K", "1.s", ".5s", "1d", "NaN"];
for (const text of [...refused, "Infinity", "0x10", "1,5s", "٣"]) {
  Deno.test(`"${text}" is no duration, size or count`, () => {
    for (const parse of [parseDurationMs, parseSizeBytes, parseCount]) {
      assert.throws(() => parse(text), UsageError);
    }
  });
}

Deno.test("no text makes a parser return anything but a positive whole number", () => {
  const text = fc.oneof(fc.string(), fc.stringMatching(/^[0-9.]{1,25}(ms|s|m|h|[KMGT]i?B?)?$/));
  fc.assert(fc.property(text, (text) => {
    for (const parse of [parseDurationMs, parseSizeBytes, parseCount]) {
      try {
        const value = parse(text);
        assert.ok(Number.isSafeInteger(value) && value >= 1);
      } catch (error) {
        assert.ok(error instanceof UsageError);
      }
    }
  }));
});
