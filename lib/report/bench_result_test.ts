import assert from "node:assert/strict";
import {
  BENCH_FORMAT,
  BENCH_VERSION,
  type BenchReport,
  decodeBenchReport,
  encodeBenchReport,
} from "./bench_result.ts";
import { median, pairedRatios, quantile, summarize } from "./bench_statistics.ts";
import { formatBenchReport } from "./bench_table.ts";

const REPORT: BenchReport = {
  format: BENCH_FORMAT,
  version: BENCH_VERSION,
  kemari: "0.1.0",
  commit: "0123456789ab",
  startedAt: "2026-01-02T03:04:05.000Z",
  quick: false,
  machine: { cpu: "a CPU", cores: 2, memoryBytes: 24e9, kernel: "6.12", deno: "2.9.6" },
  experiments: [{
    name: "colo",
    about: "checkpoints",
    series: [
      { name: "kemari", unit: "syncs/s", samples: [400, 420, 410] },
      {
        name: "ratio",
        unit: "×",
        samples: [0.5, 0.7, 0.9],
        target: { kind: "at-least", value: 0.8 },
      },
      {
        name: "start",
        unit: "ms",
        samples: [80, 90],
        target: { kind: "at-most", value: 150 },
      },
    ],
    notes: ["a note"],
  }],
};

Deno.test("a report survives its JSON", () => {
  assert.deepEqual(decodeBenchReport(encodeBenchReport(REPORT)), REPORT);
});

Deno.test("what is no report of this version is refused", () => {
  const cases: [string, RegExp][] = [
    ["{", /not JSON/],
    ["[]", /no benchmark's/],
    ["null", /no benchmark's/],
    ['{"format":"other"}', /no benchmark's/],
    [JSON.stringify({ ...REPORT, version: 2 }), /version 2/],
    [JSON.stringify({ ...REPORT, experiments: {} }), /incomplete/],
    [
      JSON.stringify({
        ...REPORT,
        experiments: [{
          ...REPORT.experiments[0],
          series: [{ name: "x", unit: "ms", samples: ["1"] }],
        }],
      }),
      /incomplete/,
    ],
  ];
  for (const [text, message] of cases) assert.throws(() => decodeBenchReport(text), message);
});

Deno.test("a table has a row for each series, its median, its spread and its target", () => {
  const table = formatBenchReport(REPORT);
  assert.match(table, /\| kemari +\| +410 \| syncs\/s \| +±1 % \| +400–420 \| 3 \|/);
  assert.match(table, /ratio .*0\.700.*≥ 0\.8 MISSED/);
  assert.match(table, /start .*85\.0.*≤ 150 met/);
  assert.match(table, /- a note\n$/);
  const widths = table.split("\n").filter((line) => line.startsWith("|"))
    .map((line) => line.length);
  assert.equal(new Set(widths).size, 1);
});

Deno.test("quantiles lie between their neighbours; of nothing there are none", () => {
  assert.equal(quantile([10, 20, 30], 0.25), 15);
  assert.equal(quantile([7], 0.99), 7);
  assert.equal(median([3, 1, 2]), 2);
  assert.ok(Number.isNaN(median([])));
});

Deno.test("the spread is half the distance between the quartiles", () => {
  assert.deepEqual(summarize([80, 90, 100, 110, 120]), {
    count: 5,
    median: 100,
    min: 80,
    max: 120,
    spreadPercent: 10,
  });
});

Deno.test("ratios pair the samples of one round", () => {
  assert.deepEqual(pairedRatios([10, 20, 30], [2, 4]), [5, 5]);
});
