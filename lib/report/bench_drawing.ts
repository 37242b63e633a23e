/** The pictures of an experiment: one for each group of numbers with the same unit. */
import type {
  BenchChart,
  BenchDistribution,
  BenchExperiment,
  BenchGrid,
  BenchSeries,
} from "./bench_result.ts";

/** The contents of a picture, for a library to draw. */
export type Drawing =
  | { readonly kind: "bars"; readonly title: string; readonly grid: BenchGrid }
  | { readonly kind: "curves"; readonly title: string; readonly chart: BenchChart };

/** The drawings of an experiment, each with a unique name that is also a file name. */
export function drawingsOf(experiment: BenchExperiment): { name: string; drawing: Drawing }[] {
  const titled = (title: string) => `${experiment.name}: ${title}`;
  const drawings: Drawing[] = [
    ...(experiment.charts ?? []).map((chart): Drawing => ({
      kind: "curves",
      title: titled(chart.name),
      chart,
    })),
    ...(experiment.grids ?? []).map((grid): Drawing => ({
      kind: "bars",
      title: titled(`${grid.name} (${grid.unit})`),
      grid,
    })),
    ...distributionCharts(experiment.distributions ?? []).map((chart): Drawing => ({
      kind: "curves",
      title: titled(chart.name),
      chart,
    })),
    ...seriesGrids(experiment.series).map((grid): Drawing => ({
      kind: "bars",
      title: titled(grid.unit === "×" ? "ratios" : grid.unit),
      grid,
    })),
  ];
  const names = new Set<string>();
  return drawings.filter(hasContent).map((drawing) => {
    const base = drawing.title.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-")
      .replaceAll(/^-|-$/g, "");
    let name = base;
    for (let i = 2; names.has(name); i++) name = `${base}-${i}`;
    names.add(name);
    return { name, drawing };
  });
}

function hasContent(drawing: Drawing): boolean {
  return drawing.kind === "bars"
    ? drawing.grid.cells.some((row) => row.some((samples) => samples.length > 0))
    : drawing.chart.curves.some(({ points }) => points.some(([, y]) => y !== null));
}

/** Series with the same unit share a picture; a single series gets none. */
function seriesGrids(series: readonly BenchSeries[]): BenchGrid[] {
  const units = [...new Set(series.map(({ unit }) => unit))];
  return units.map((unit) => ({ unit, of: series.filter((each) => each.unit === unit) }))
    .filter(({ of }) => of.length > 1)
    .map(({ unit, of }) => ({
      name: unit,
      unit,
      rows: [""],
      columns: of.map(({ name }) => name),
      cells: [of.map(({ samples }) => samples)],
    }));
}

/** The most curves that can be distinguished in one picture. */
const MOST_CURVES = 8;

/** Distributions that share a picture, and what they have in common, if their names say so. */
interface DistributionGroup {
  readonly unit: string;
  readonly what: string;
  readonly of: readonly BenchDistribution[];
}

/**
 * Distributions with the same unit share a picture. If they are too many, they are split by the
 * part of their names before the colon.
 */
function distributionGroups(distributions: readonly BenchDistribution[]): DistributionGroup[] {
  const units = [...new Set(distributions.map(({ unit }) => unit))];
  return units.flatMap((unit): DistributionGroup[] => {
    const all = distributions.filter((each) => each.unit === unit);
    if (all.length <= MOST_CURVES) return [{ unit, what: "", of: all }];
    const whatOf = ({ name }: BenchDistribution) => name.split(": ", 1)[0];
    return [...new Set(all.map(whatOf))].map((what) => ({
      unit,
      what,
      of: all.filter((each) => whatOf(each) === what)
        .map((each) => ({
          ...each,
          name: each.name.slice(what.length).replace(/^: /, "") || what,
        })),
    }));
  });
}

/** The share of the values that are at most x. */
function distributionCharts(distributions: readonly BenchDistribution[]): BenchChart[] {
  return distributionGroups(distributions).map(({ unit, what, of }) => {
    const values = of.flatMap(({ quantiles }) => quantiles.map(([, value]) => value));
    const wide = Math.min(...values) > 0 && Math.max(...values) > 20 * Math.min(...values);
    return {
      name: what === "" ? `distribution (${unit})` : `${what}, distribution (${unit})`,
      x: { name: "at most", unit, scale: wide ? "log" : "linear" },
      y: { name: "share", unit: "%" },
      curves: of.map(({ name, count, quantiles }) => ({
        name: `${name} (n = ${count})`,
        points: quantiles.map(([share, value]) => [value, share * 100] as const),
      })),
    };
  });
}
