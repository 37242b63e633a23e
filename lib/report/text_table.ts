/** A column of a table of text. */
export interface Column {
  readonly title: string;
  /** Numbers are aligned right; text is aligned left, which is the default. */
  readonly align?: "left" | "right";
}

/**
 * Aligns rows under their titles, two spaces apart, for a terminal of any width.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const columns = [{ title: "block" }, { title: "pages", align: "right" }] as const;
 * assert.deepEqual(formatTable(columns, [["pc.ram", "12"]]), [
 *   "block   pages",
 *   "pc.ram     12",
 * ]);
 * ```
 *
 * @returns Lines without line breaks and without trailing spaces, the titles first.
 */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string[] {
  const widths = columns.map(({ title }, index) => {
    return Math.max(title.length, ...rows.map((row) => row[index].length));
  });
  const line = (cells: readonly string[]) =>
    columns.map(({ align }, index) => {
      const cell = cells[index];
      return align === "right" ? cell.padStart(widths[index]) : cell.padEnd(widths[index]);
    }).join("  ").trimEnd();
  return [line(columns.map(({ title }) => title)), ...rows.map(line)];
}

/** Values in a column after their names: `name value`. A name may be empty. */
export function formatPairs(pairs: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...pairs.map(([name]) => name.length));
  return pairs.map(([name, value]) => `${name.padEnd(width)}  ${value}`.trimEnd());
}
