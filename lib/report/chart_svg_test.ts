import assert from "node:assert/strict";
import { drawingsOf } from "./bench_drawing.ts";
import { formatBenchHtml } from "./bench_html.ts";
import {
  BENCH_FORMAT,
  BENCH_VERSION,
  type BenchExperiment,
  type BenchReport,
} from "./bench_result.ts";
import { distributionOf } from "./bench_statistics.ts";
import { drawSvg } from "./chart_svg.ts";

const EXPERIMENT: BenchExperiment = {
  name: "syncs",
  about: "a <b> & c",
  conditions: { qemu: "11.1.3" },
  series: [
    { name: "kemari", unit: "syncs/s", samples: [400, 420, 410] },
    { name: "QEMU", unit: "syncs/s", samples: [11], target: { kind: "at-most", value: 5 } },
    { name: "alone", unit: "ms", samples: [1] },
  ],
  grids: [{
    name: "throughput",
    unit: "MB/s",
    rows: ["unprotected", "kemari"],
    columns: ["write", "read"],
    cells: [[[10, 20, 31], [100]], [[5, 15], []]],
  }, { name: "empty", unit: "MB/s", rows: ["a"], columns: ["b"], cells: [[[]]] }],
  charts: [{
    name: "traffic",
    x: { name: "pages", unit: "", scale: "log" },
    y: { name: "bytes", unit: "MB/s", scale: "log" },
    curves: [
      { name: "sent", points: [[1, 1.5], [2, null], [4, 0], [8, 100]] },
      { name: "held", points: [[1, 2]] },
    ],
  }],
  distributions: [distributionOf("pause", "ms", [1, 2, 3])!],
  notes: ["note <script>"],
  cannotShow: ["KVM"],
};

Deno.test("every chart has its title, its axes with units, and the names of its curves", () => {
  const drawn = drawingsOf(EXPERIMENT).map(({ name, drawing }) =>
    [name, drawSvg(drawing)] as const
  );
  assert.deepEqual(drawn.map(([name]) => name), [
    "syncs-traffic",
    "syncs-throughput-mb-s",
    "syncs-distribution-ms",
    "syncs-syncs-s",
  ]);
  const wanted = [
    ["syncs: traffic", "pages", "bytes (MB/s)", "sent", "held"],
    ["syncs: throughput (MB/s)", "unprotected", "kemari", "write", "read", "MB/s", "20.0"],
    ["syncs: distribution (ms)", "at most (ms)", "share (%)", "pause (n = 3)"],
    ["syncs: syncs/s", "kemari", "QEMU", "410", "11.0"],
  ];
  drawn.forEach(([name, svg], i) => {
    assert.match(svg, /^<svg [^>]*xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    const texts = [...svg.matchAll(/<text[^>]*>([^<]*)<\/text>/g)].map(([, text]) => text);
    for (const text of wanted[i]) {
      assert.ok(texts.includes(text), `${name} lacks ${text}: ${texts}`);
    }
    assert.doesNotMatch(svg, /NaN|undefined|Infinity/);
  });
});

Deno.test("more distributions than one picture can show stand in one for each thing they are of", () => {
  const distributions = ["pause", "commit"].flatMap((what) =>
    Array.from({ length: 6 }, (_, i) => distributionOf(`${what}: mode ${i}`, "ms", [i + 1, 9])!)
  );
  const drawings = drawingsOf({ ...EXPERIMENT, distributions, charts: [], grids: [], series: [] });
  assert.deepEqual(drawings.map(({ name }) => name), [
    "syncs-pause-distribution-ms",
    "syncs-commit-distribution-ms",
  ]);
  for (const { drawing } of drawings) {
    assert.ok(drawing.kind === "curves");
    assert.equal(drawing.chart.curves.length, 6);
    assert.equal(drawing.chart.curves[5].name, "mode 5 (n = 2)");
  }
});

Deno.test("an empty cell gets no bar, and a series alone no chart", () => {
  const svg = drawSvg(drawingsOf(EXPERIMENT)[1].drawing);
  assert.ok(!svg.includes(">none<"));
  assert.ok(!drawingsOf(EXPERIMENT).some(({ name }) => name === "syncs-ms"));
});

Deno.test("the HTML holds charts, tables and conditions, and loads nothing", () => {
  const report: BenchReport = {
    format: BENCH_FORMAT,
    version: BENCH_VERSION,
    kemari: "0.1.0",
    commit: null,
    startedAt: "2026-01-02T03:04:05.000Z",
    quick: true,
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
    experiments: [{ ...EXPERIMENT, partial: "2 of 3 rounds" }],
    missing: [{ name: "colo", why: "interrupted" }],
  };
  const html = formatBenchHtml(report, new Map([["syncs", ["<svg>chart</svg>"]]]));
  for (
    const part of [
      "<svg>chart</svg>",
      "a &lt;b&gt; &amp; c",
      "note &lt;script&gt;",
      "Conditions: qemu 11.1.3",
      "Partial: 2 of 3 rounds",
      "<td>kemari</td><td>410</td>",
      '<td class="missed">≤ 5 MISSED</td>',
      "<li>KVM</li>",
      "colo: interrupted",
      "a CPU",
    ]
  ) assert.ok(html.includes(part), part);
  assert.doesNotMatch(html, /\b(src|href)="(?!#)|@import|url\(/);
});
