/**
 * Draws a picture with ECharts, without a browser, as the text of an SVG file.
 *
 * The library is 2.7 MB of source, which the executable keeps out of its main bundle: only
 * `bench/chart_worker.ts` imports this.
 */
import { BarChart, CustomChart, LineChart } from "echarts/charts";
import { GridComponent, LegendComponent, TitleComponent } from "echarts/components";
import { type EChartsCoreOption, init, setPlatformAPI, use } from "echarts/core";
import { SVGRenderer } from "echarts/renderers";
import type { Drawing } from "./bench_drawing.ts";
import type { BenchAxis, BenchChart, BenchGrid } from "./bench_result.ts";
import { quantile } from "./bench_statistics.ts";
import { formatValue } from "./bench_rows.ts";

use([
  BarChart,
  CustomChart,
  GridComponent,
  LegendComponent,
  LineChart,
  SVGRenderer,
  TitleComponent,
]);

const WIDTH = 820;
const PLOT_HEIGHT = 300;
const FONT = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";
/** Colours that colour-blind people can distinguish too (after Okabe and Ito). */
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666"]
  .concat("#9a8500");
const SYMBOLS = ["circle", "rect", "triangle", "diamond"];
const LEGEND_ROW = 20;
/**
 * Width of a character relative to its height: there is no browser to measure it, and a font may be
 * wide.
 */
const CHARACTER_RATIO = 0.61;
const CHARACTER = 12 * CHARACTER_RATIO;
const BAR = { barMaxWidth: 18 };

setPlatformAPI({
  measureText: (text, font) => {
    const size = Number(/(\d+(?:\.\d+)?)px/.exec(font ?? "")?.[1] ?? 12);
    return { width: text.length * size * CHARACTER_RATIO };
  },
});

/** Draws one picture. */
export function drawSvg(drawing: Drawing): string {
  const option = drawing.kind === "bars"
    ? barOption(drawing.title, drawing.grid)
    : curveOption(drawing.title, drawing.chart);
  const chart = init(null, null, {
    renderer: "svg",
    ssr: true,
    width: WIDTH,
    height: option.height,
  });
  try {
    chart.setOption(option.chart);
    return chart.renderToSVGString();
  } finally {
    chart.dispose();
  }
}

interface SizedOption {
  readonly height: number;
  readonly chart: EChartsCoreOption;
}

function curveOption(title: string, chart: BenchChart): SizedOption {
  const names = chart.curves.map(({ name }) => name);
  const { top, common } = frame(title, names);
  const stacked = chart.kind === "stacked";
  const many = chart.curves.some(({ points }) => points.length > 40);
  const xs = chart.curves.flatMap(({ points }) => points.map(([x]) => x));
  const ys = chart.curves.flatMap(({ points }) => points.flatMap(([, y]) => y ?? []));
  return {
    height: top + PLOT_HEIGHT + 55,
    chart: {
      ...common,
      grid: { left: 75, right: 30, top, height: PLOT_HEIGHT },
      xAxis: { ...axis(chart.x, xs), nameGap: 30, nameLocation: "middle", splitLine: PALE },
      yAxis: { ...axis(chart.y, ys), nameGap: 52, nameLocation: "middle", splitLine: PALE },
      series: chart.curves.map(({ name, points }, i) => ({
        type: "line",
        name,
        data: points.map(([x, y]) => [x, y !== null && (y > 0 || !isLog(chart.y)) ? y : null]),
        symbol: SYMBOLS[i % SYMBOLS.length],
        showSymbol: !many,
        symbolSize: 7,
        lineStyle: { width: many ? 1.5 : 2, type: i >= COLORS.length ? "dashed" : "solid" },
        ...(stacked ? { stack: "all", areaStyle: { opacity: 0.6 } } : {}),
      })),
    },
  };
}

/** Bars are horizontal: their names are long. */
function barOption(title: string, grid: BenchGrid): SizedOption {
  const single = grid.rows.length === 1;
  const { top, common } = frame(title, single ? [] : [...grid.rows]);
  const bars = grid.rows.length * grid.columns.length;
  const plot = Math.max(60, bars * 19 + grid.columns.length * 12);
  const widest = Math.max(...grid.columns.map((name) => name.length));
  const left = Math.min(330, 20 + widest * CHARACTER);
  return {
    height: top + plot + 55,
    chart: {
      ...common,
      grid: { left, right: 80, top, height: plot },
      xAxis: {
        ...axis({ name: "", unit: grid.unit }, []),
        min: 0,
        nameGap: 30,
        nameLocation: "middle",
        splitLine: PALE,
      },
      yAxis: {
        type: "category",
        data: grid.columns,
        inverse: true,
        axisTick: { show: false },
        axisLabel: { ...TEXT, width: left - 15, overflow: "truncate" },
      },
      series: grid.rows.flatMap((row, i) => {
        const quartiles = (samples: readonly number[]) =>
          [0.25, 0.5, 0.75].map((share) => quantile(samples, share));
        const cells = grid.cells[i].map(quartiles);
        return [{
          ...BAR,
          type: "bar",
          name: row,
          data: cells.map(([, median]) => Number.isNaN(median) ? null : median),
          itemStyle: { color: COLORS[i % COLORS.length] },
        }, {
          type: "custom",
          silent: true,
          z: 5,
          encode: { x: [1, 2, 3], y: 0 },
          data: cells.map((values, column) => [column, ...values]),
          renderItem: (_params: unknown, api: BarApi) => {
            const [column, low, median, high] = [0, 1, 2, 3].map((place) => api.value(place));
            if (Number.isNaN(median)) return undefined;
            const slot = api.barLayout({ count: grid.rows.length, ...BAR })[i];
            const [x1, middle] = api.coord([low, column]);
            const [x2] = api.coord([high, column]);
            return spreadAndValue(x1, x2, middle + slot.offsetCenter, formatValue(median));
          },
        }];
      }),
    },
  };
}

interface BarApi {
  value(place: number): number;
  coord(point: [number, number]): [number, number];
  barLayout(options: { count: number; barMaxWidth: number }): { offsetCenter: number }[];
}

/** A line from quartile to quartile, and the median as a number beside it. */
function spreadAndValue(x1: number, x2: number, y: number, value: string) {
  const line = (ax: number, ay: number, bx: number, by: number) => ({
    type: "line",
    shape: { x1: ax, y1: ay, x2: bx, y2: by },
    style: { stroke: "#222", lineWidth: 1.2 },
  });
  const cap = 4;
  const whisker = x2 - x1 < 1
    ? []
    : [line(x1, y, x2, y), line(x1, y - cap, x1, y + cap), line(x2, y - cap, x2, y + cap)];
  return {
    type: "group",
    children: [...whisker, {
      type: "text",
      style: {
        text: value,
        x: x2 + 7,
        y,
        verticalAlign: "middle",
        font: `12px ${FONT}`,
        fill: TEXT.color,
      },
    }],
  };
}

const TEXT = { fontFamily: FONT, fontSize: 12, color: "#333" };
const PALE = { show: true, lineStyle: { color: "#e6e6e6" } };

/** Title and legend, and where the plot begins below them. */
function frame(title: string, names: readonly string[]) {
  let rows = names.length === 0 ? 0 : 1;
  let used = 0;
  for (const name of names) {
    const width = 45 + name.length * CHARACTER;
    if (used > 0 && used + width > WIDTH - 30) {
      rows++;
      used = 0;
    }
    used += width;
  }
  return {
    top: 54 + rows * LEGEND_ROW,
    common: {
      animation: false,
      backgroundColor: "#ffffff",
      color: COLORS,
      title: {
        text: title,
        left: 12,
        top: 10,
        textStyle: { ...TEXT, fontSize: 15, fontWeight: 600, color: "#111" },
      },
      legend: {
        data: [...names],
        show: names.length > 0,
        left: 10,
        top: 36,
        width: WIDTH - 30,
        itemGap: 12,
        textStyle: TEXT,
      },
    },
  };
}

function isLog(axis: BenchAxis): boolean {
  return axis.scale === "log";
}

/** @param values The values on the axis: powers of two get an axis of powers of two. */
function axis({ name, unit, scale }: BenchAxis, values: readonly number[]) {
  const isBinary = scale === "log" && values.length > 0 &&
    values.every((value) => value > 0 && Number.isInteger(Math.log2(value)));
  const ticks = [...new Set(values)].sort((a, b) => a - b);
  return {
    type: scale === "log" ? "log" : "value",
    ...(isBinary
      ? {
        logBase: 2,
        min: Math.min(...values),
        max: Math.max(...values),
        axisTick: { customValues: ticks },
      }
      : {}),
    name: [name, unit === "" || name === "" ? unit : `(${unit})`].join(" ").trim(),
    nameTextStyle: TEXT,
    axisLabel: {
      ...TEXT,
      margin: 10,
      hideOverlap: true,
      formatter: sayTick,
      ...(isBinary ? { customValues: ticks } : {}),
    },
  };
}

/** Ticks without superfluous digits: 0.001, 25, 4096, 1.5M. */
function sayTick(value: number): string {
  const size = Math.abs(value);
  if (size >= 1e9) return `${Number((value / 1e9).toPrecision(4))}G`;
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  return String(Number(value.toPrecision(6)));
}
