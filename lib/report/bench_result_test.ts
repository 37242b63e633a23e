import assert from "node:assert/strict";
import {
  BENCH_FORMAT,
  BENCH_VERSION,
  type BenchReport,
  decodeBenchReport,
  encodeBenchReport,
} from "./bench_result.ts";
import {
  distributionOf,
  median,
  pairedRatios,
  quantile,
  ratioGrid,
  summarize,
} from "./bench_statistics.ts";
import { formatBenchReport } from "./bench_table.ts";

const REPORT: BenchReport = {
  format: BENCH_FORMAT,
  version: BENCH_VERSION,
  kemari: "0.1.0",
  commit: "0123456789ab",
  startedAt: "2026-01-02T03:04:05.000Z",
  quick: false,
  full: false,
  machine: {
    cpu: "a CPU",
    cores: 2,
    memoryBytes: 24e9,
    kernel: "6.12",
    deno: "2.9.6",
    accelerator: "tcg",
    virtual: true,
  },
  missing: [{ name: "stream", why: "interrupted" }],
  experiments: [{
    name: "colo",
    about: "checkpoints",
    conditions: { qemu: "11.1.3" },
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
    grids: [{
      name: "throughput",
      unit: "MB/s",
      rows: ["unprotected", "kemari"],
      columns: ["write", "read"],
      cells: [[[10, 20], [100]], [[5, 15], []]],
    }],
    charts: [{
      name: "traffic",
      x: { name: "time", unit: "s" },
      y: { name: "bytes", unit: "MB/s" },
      curves: [{ name: "pages", points: [[0, 1.5], [1, null]] }],
    }],
    distributions: [distributionOf("pause", "ms", [3, 1, 2])!],
    notes: ["a note"],
    cannotShow: ["KVM"],
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
    [JSON.stringify({ ...REPORT, version: 1 }), /version 1/],
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
    ...[
      { charts: [{ name: "x", x: {}, y: {}, curves: [] }] },
      { grids: [{ name: "x", unit: "", rows: ["a"], columns: ["b", "c"], cells: [[[1]]] }] },
      { distributions: [{ name: "x", unit: "", count: 1, quantiles: [[1]] }] },
      { conditions: undefined },
      { partial: 1 },
    ].map((fault): [string, RegExp] => [
      JSON.stringify({ ...REPORT, experiments: [{ ...REPORT.experiments[0], ...fault }] }),
      /incomplete/,
    ]),
  ];
  for (const [text, message] of cases) assert.throws(() => decodeBenchReport(text), message);
});

Deno.test("a table has a row for each series, its median, its spread and its target", () => {
  const table = formatBenchReport(REPORT);
  assert.match(table, /\| kemari +\| +410 \| syncs\/s \| +±1 % \| +400–420 \| 3 \|/);
  assert.match(table, /ratio .*0\.700.*≥ 0\.8 MISSED/);
  assert.match(table, /start .*85\.0.*≤ 150 met/);
  assert.match(table, /- a note\n- cannot be shown here: KVM\n/);
  assert.match(table, /## Missing\n- stream: interrupted\n$/);
  const widths = table.split("\n\n").map((part) =>
    new Set(
      part.split("\n").filter((line) => line.startsWith("|"))
        .map((line) => line.length),
    ).size
  );
  assert.ok(widths.every((count) => count <= 1), table);
});

Deno.test("grids, curves and distributions are told in tables", () => {
  const table = formatBenchReport(REPORT);
  assert.match(table, /\| kemari +\| +10\.0 ±25 % \| none \|/);
  assert.match(table, /traffic: bytes \(MB\/s\) over time \(s\)/);
  assert.match(table, /\| 0 +\| +1\.50 \|\n\| 1 +\| +\|/);
  assert.match(table, /\| pause \| +ms \| 1\.00 \| 2\.00 \|/);
});

Deno.test("a grid of ratios compares what was measured in one round", () => {
  const ratios = ratioGrid(REPORT.experiments[0].grids![0], "ratio", "unprotected");
  assert.deepEqual(ratios, {
    name: "ratio",
    unit: "×",
    rows: ["kemari"],
    columns: ["write", "read"],
    cells: [[[0.5, 0.75], []]],
  });
});

Deno.test("a distribution keeps both ends and the middle", () => {
  const values = Array.from({ length: 1001 }, (_, i) => 1000 - i);
  const { count, quantiles } = distributionOf("x", "ms", values)!;
  assert.equal(count, 1001);
  assert.deepEqual(quantiles[0], [0, 0]);
  assert.deepEqual(quantiles.at(-1), [1, 1000]);
  assert.deepEqual(quantiles.find(([share]) => share === 0.99), [0.99, 990]);
  assert.equal(distributionOf("x", "ms", []), undefined);
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
