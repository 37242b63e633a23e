/** Whether JSON that claims to be an experiment has everything that tables and charts read. */

type Json = Record<string, unknown>;

/** Whether every field of an experiment is there and of its kind. */
export function isSoundExperiment(value: unknown): boolean {
  return isRecord(value) && hasText(value, "name", "about") && isRecord(value.conditions) &&
    isList(value.series, isSoundSeries) && isTextList(value.notes) &&
    isTextList(value.cannotShow) && isOptional(value.grids, isSoundGrid) &&
    isOptional(value.charts, isSoundChart) &&
    isOptional(value.distributions, isSoundDistribution) &&
    (value.partial === undefined || typeof value.partial === "string");
}

function isSoundSeries(value: unknown): boolean {
  return isRecord(value) && hasText(value, "name", "unit") && isNumberList(value.samples);
}

function isSoundGrid(value: unknown): boolean {
  if (!isRecord(value) || !hasText(value, "name", "unit")) return false;
  const { rows, columns, cells } = value;
  return isTextList(rows) && isTextList(columns) &&
    isList(
      cells,
      (row) => isList(row, isNumberList) && (row as unknown[]).length === columns.length,
    ) &&
    (cells as unknown[]).length === rows.length;
}

function isSoundChart(value: unknown): boolean {
  const isAxis = (axis: unknown) => isRecord(axis) && hasText(axis, "name", "unit");
  return isRecord(value) && hasText(value, "name") && isAxis(value.x) && isAxis(value.y) &&
    isList(
      value.curves,
      (curve) =>
        isRecord(curve) && hasText(curve, "name") &&
        isList(curve.points, (point) =>
          Array.isArray(point) && point.length === 2 && typeof point[0] === "number" &&
          (point[1] === null || typeof point[1] === "number")),
    );
}

function isSoundDistribution(value: unknown): boolean {
  return isRecord(value) && hasText(value, "name", "unit") && typeof value.count === "number" &&
    isList(value.quantiles, (pair) => isNumberList(pair) && (pair as unknown[]).length === 2);
}

function isRecord(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function hasText(value: Json, ...names: string[]): boolean {
  return names.every((name) => typeof value[name] === "string");
}

function isList(value: unknown, sound: (item: unknown) => boolean): boolean {
  return Array.isArray(value) && value.every(sound);
}

function isOptional(value: unknown, sound: (item: unknown) => boolean): boolean {
  return value === undefined || isList(value, sound);
}

function isTextList(value: unknown): value is string[] {
  return isList(value, (item) => typeof item === "string");
}

/** A sample that was not finite is null in JSON: that is an error in the experiment. */
function isNumberList(value: unknown): boolean {
  return isList(value, (item) => typeof item === "number");
}
