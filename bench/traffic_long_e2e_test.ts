import assert from "node:assert/strict";
import type { BenchGrid } from "../lib/report/bench_result.ts";
import { hasNetwork, interruptRounds, quickRounds, WORKLOADS } from "./testing/quick_rounds.ts";

const MODES = ["none", "zstd", "delta", "auto"].map((mode) => `kemari, --compress ${mode}`);

Deno.test("e2e: bench traffic tells what is on the link, over time and of what kind", async () => {
  const traffic = await quickRounds("traffic");
  const grids = traffic.grids!;
  const [onLink, , perWork] = grids;
  assert.deepEqual(onLink.columns, WORKLOADS);
  const cell = ({ rows, cells }: BenchGrid, row: string, column: number) =>
    cells[rows.indexOf(row)][column][0];
  for (const mode of MODES) {
    for (const [column] of WORKLOADS.entries()) {
      const rate = cell(onLink, mode, column);
      assert.ok(rate > 0, `${mode}: ${rate} MB/s`);
      const parts = grids.slice(3)[column];
      const [pages, deviceState, events, framing, written] = parts.cells[parts.rows.indexOf(mode)]
        .map(([sample]) => sample);
      assert.ok(
        pages > 0 && deviceState > 0 && events >= 0 && framing > 0,
        `${mode}: ${parts.name}`,
      );
      const made = pages + deviceState + events + framing;
      // What was made is written or waits; only zstd makes less of it.
      if (mode === MODES[0]) assert.ok(Math.abs(made / written - 1) < 0.2, `${made} of ${written}`);
      // The link's own count has headers and the other direction in it, but nothing of its own.
      if (hasNetwork) {
        assert.ok(rate > 0.9 * written && rate < 2 * written + 0.1, `${rate}, ${written}`);
      }
    }
  }
  for (const samples of perWork.cells.flat()) assert.ok(samples.every((sample) => sample > 0));
  const [lines, stacked] = traffic.charts!;
  assert.equal(lines.curves.length, onLink.rows.length);
  for (const { points } of [...lines.curves, ...stacked.curves]) assert.equal(points.length, 4);
  if (!hasNetwork) return;
  // Steps of the curve and the sum come of the same counter.
  const steps = lines.curves[0].points.map(([, y]) => y!);
  const mean = steps.reduce((sum, y) => sum + y, 0) / steps.length;
  assert.ok(Math.abs(mean / onLink.cells[0][0][0] - 1) < 0.2, `${mean}, ${onLink.cells[0][0][0]}`);
});

Deno.test("e2e: bench traffic that is interrupted leaves nothing behind", () =>
  interruptRounds("traffic"));
