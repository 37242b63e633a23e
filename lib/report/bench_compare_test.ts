import assert from "node:assert/strict";
import { UsageError } from "../errors.ts";
import { compareBenchReports, rankP } from "./bench_compare.ts";
import { formatComparison } from "./bench_compare_text.ts";
import {
  BENCH_FORMAT,
  BENCH_VERSION,
  type BenchExperiment,
  type BenchReport,
} from "./bench_result.ts";

function reportOf(experiment: Partial<BenchExperiment>, rest: Partial<BenchReport> = {}) {
  const report: BenchReport = {
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
    missing: [],
    experiments: [{
      name: "stream",
      about: "",
      conditions: { link: "loopback" },
      series: [],
      notes: [],
      cannotShow: [],
      ...experiment,
    }],
    ...rest,
  };
  return report;
}

function compareSamples(before: readonly number[], after: readonly number[]) {
  const of = (samples: readonly number[]) =>
    reportOf({ series: [{ name: "speed", unit: "MB/s", samples }] });
  return compareBenchReports(of(before), of(after)).differences[0];
}

Deno.test("a change needs samples that are ranked apart and medians that are far enough apart", () => {
  const cases: [readonly number[], readonly number[], string][] = [
    [[100, 101, 102, 103, 104], [130, 131, 129, 132, 128], "higher"],
    [[100, 101, 102, 103, 104], [70, 71, 69, 72, 68], "lower"],
    // Certain, and yet below 3 %.
    [[100, 100.1, 100.2, 100.3], [101, 101.1, 101.2, 101.3], "same"],
    // Far apart, and within the spread of both.
    [[60, 80, 100, 120, 140], [70, 95, 125, 140, 160], "same"],
    [[100, 101, 102], [200, 201, 202], "too few samples"],
    [[], [200, 201, 202, 203], "too few samples"],
    [[100, 100, 100, 100], [100, 100, 100, 100], "same"],
  ];
  for (const [before, after, verdict] of cases) {
    assert.equal(compareSamples(before, after).verdict, verdict, `${before} and ${after}`);
  }
  assert.equal(compareSamples([100, 101, 102, 103], [202, 203, 204, 205]).ratio, 203.5 / 101.5);
});

Deno.test("two halves of one run hardly ever differ", () => {
  let seed = 7;
  const random = () => (seed = seed * 1103515245 + 12345 & 0x7fffffff) / 0x7fffffff;
  let told = 0;
  for (let i = 0; i < 1000; i++) {
    const list = () => Array.from({ length: 7 }, () => 100 + 20 * random());
    if (compareSamples(list(), list()).verdict !== "same") told++;
  }
  assert.ok(told <= 50, `${told} of 1000`);
});

Deno.test("ranks that are mixed prove nothing", () => {
  assert.equal(rankP([1, 3, 5, 7], [2, 4, 6, 8]) > 0.5, true);
  assert.equal(rankP([1, 2, 3], [4, 5, 6]), 0.1);
  assert.equal(rankP([5], [5]), 1);
});

Deno.test("curves are compared point by point, except over time", () => {
  const chart = (factor: number, name = "pages") => ({
    name: "cost",
    x: { name, unit: "" },
    y: { name: "time", unit: "ms" },
    curves: [{ name: "bit", points: [1, 2, 3, 4, 5, 6].map((x) => [x, factor * x] as const) }],
  });
  const of = (...charts: ReturnType<typeof chart>[]) => reportOf({ charts });
  const [slower] = compareBenchReports(of(chart(1)), of(chart(2))).differences;
  assert.deepEqual([slower.name, slower.ratio, slower.verdict], ["cost: bit", 2, "higher"]);
  assert.equal(compareBenchReports(of(chart(1)), of(chart(1.01))).differences[0].verdict, "same");
  assert.deepEqual(
    compareBenchReports(of(chart(1, "time")), of(chart(2, "time"))).differences,
    [],
  );
});

Deno.test("cells of grids are compared by their row and column", () => {
  const of = (first: number) =>
    reportOf({
      grids: [{
        name: "iozone",
        unit: "MB/s",
        rows: ["unprotected"],
        columns: ["write", "read"],
        cells: [[[first, first, first, first], []]],
      }],
    });
  const { differences } = compareBenchReports(of(10), of(20));
  assert.deepEqual(differences.map(({ name, verdict }) => [name, verdict]), [
    ["iozone, unprotected, write", "higher"],
  ]);
});

Deno.test("runs of different conditions are refused, and each condition is named", () => {
  const base = reportOf({});
  const cases: [BenchReport, RegExp][] = [
    [
      reportOf({}, { machine: { ...base.machine, kernel: "7.0" } }),
      /kernel 6\.12 and 7\.0/,
    ],
    [reportOf({}, { machine: { ...base.machine, accelerator: "kvm" } }), /accelerator tcg and kvm/],
    [reportOf({}, { machine: { ...base.machine, memoryBytes: 8e9 } }), /memory/],
    [reportOf({}, { quick: true }), /settings normal and quick/],
    [reportOf({ conditions: { link: "10G" } }), /stream's link loopback and 10G/],
    [reportOf({ conditions: {} }), /stream's link loopback and unknown/],
    [reportOf({ name: "other" }), /no experiment in common/],
  ];
  for (const [other, message] of cases) {
    assert.throws(() => compareBenchReports(base, other), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, message);
      return true;
    });
  }
  const slightlyLess = { ...base.machine, memoryBytes: 23.9e9 };
  compareBenchReports(base, reportOf({}, { machine: slightlyLess, commit: "another" }));
  assert.throws(() => compareBenchReports(base, base, ["colo"]), /"colo"/);
});

Deno.test("the text tells what changed, what cannot be told, and what only one run has", () => {
  const series = (name: string, samples: number[]) => ({ name, unit: "ms", samples });
  const before = reportOf({
    series: [series("a", [10, 10, 10, 10]), series("b", [1]), series("old", [1])],
  });
  const after = reportOf({
    series: [series("a", [5, 5, 5, 5]), series("b", [2]), series("new", [1])],
  });
  const text = formatComparison(compareBenchReports(before, after));
  assert.match(text, /^experiment +quantity +before +after +unit +change\n/);
  assert.match(text, /stream +a +10\.0 +5\.00 +ms +-50\.0 % +lower\n/);
  assert.match(text, /1 of 2 quantities changed/);
  assert.match(text, /1 have too few samples/);
  assert.match(text, /only before: stream: old\nonly after: stream: new\n$/);
});
