import assert from "node:assert/strict";
import { KEMARI_2010 } from "./guest_setups.ts";
import { hasNetwork, interruptRounds, quickRounds, WORKLOADS } from "./testing/quick_rounds.ts";

Deno.test("e2e: bench syncs counts them over time, and how long each takes", async () => {
  const syncs = await quickRounds("syncs");
  const grid = (name: string) => syncs.grids!.find((each) => each.name === name)!;
  const rates = grid("syncs");
  assert.deepEqual(rates.columns, WORKLOADS);
  assert.equal(rates.rows.length, 5);
  const distributions = new Map(syncs.distributions!.map((each) => [each.name, each]));
  rates.rows.forEach((row, i) => {
    WORKLOADS.forEach((workload, column) => {
      const [rate] = rates.cells[i][column];
      assert.ok(rate > 0, `${row}, ${workload}: ${rate} syncs a second`);
      // Rate, distribution and curve come of the same stops.
      const stopped = distributions.get(`guest stopped: ${row}, ${workload}`)!;
      assert.ok(Math.abs(stopped.count - rate) <= 0.5 + rate / 5, `${stopped.count}, ${rate}`);
      assert.equal(stopped.quantiles[25][1], grid("guest stopped, p50").cells[i][column][0]);
      const curve = syncs.charts![column].curves.find(({ name }) => name === row)!;
      const mean = curve.points.reduce((sum, [, y]) => sum + y!, 0) / curve.points.length;
      assert.ok(Math.abs(mean - rate) <= 1 + rate / 5, `${mean}, ${rate}`);
      const commits = distributions.get(`commit: ${row}, ${workload}`);
      assert.equal(commits !== undefined, row.startsWith("kemari"), row);
    });
  });
  const held = distributions.get(`disk writes held: ${KEMARI_2010.name}, iozone`)!;
  assert.ok(held.count > 0 && held.quantiles[0][1] > 0);
  if (hasNetwork) {
    assert.ok(distributions.get(`packets held: ${KEMARI_2010.name}, request/response`)!.count > 0);
  }
});

Deno.test("e2e: bench syncs that is interrupted leaves nothing behind", () =>
  interruptRounds("syncs"));
