/** What `kemari bench colo` and `soak` are made of, each as short as it can be, on real VMs. */
import assert from "node:assert/strict";
import { netLabMissing } from "../../lib/lab/network/net_lab.ts";
import { ensureQemu } from "../../lib/lab/provision/qemu.ts";
import { FROM_SOURCE, KemariProcess } from "../../lib/lab/program/kemari_process.ts";
import { decodeBenchReport } from "../../lib/report/bench_result.ts";
import type { BenchContext } from "../bench_context.ts";
import { leavesNothing } from "../../lib/lab/testing/leaves_nothing.ts";
import { QuickLoopback } from "../../lib/lab/network/quick_acks.ts";
import { keptKb } from "./colo_memory.ts";
import { ColoRates, VIRTIO_DEVICES } from "./colo_rates.ts";
import { measureTable } from "./colo_table.ts";
import type { ColoSetup } from "./colo_vm.ts";
import { never } from "../../lib/host/system/never.ts";

const hasNetwork = await netLabMissing() === undefined;
const context: BenchContext = {
  quick: true,
  full: false,
  seconds: 0.3,
  signal: never,
  say: () => {},
  progress: () => {},
  keep: () => {},
};

/** A VM that runs its firmware only. */
async function firmware(prefix: readonly string[] = []): Promise<ColoSetup> {
  return {
    qemu: (await ensureQemu("11.1")).program,
    memoryMiB: 64,
    devices: [],
    link: "tcp",
    prefix,
    intervalMs: 1000,
    kemari: FROM_SOURCE,
    signal: never,
  };
}

Deno.test("e2e: bench colo measures kemari and every way of QEMU's pair; the best is the rival", async () => {
  const loopback = hasNetwork ? await QuickLoopback.make() : "left out";
  await using stack = new AsyncDisposableStack();
  if (typeof loopback !== "string") stack.use(loopback);
  const prefix = typeof loopback === "string" ? [] : loopback.prefix;
  const rates = new ColoRates(context, await firmware(prefix), prefix.length > 0);
  await rates.measure(() => {});
  const [ratio, kemari, ...rest] = rates.series;
  const pairs = rest.filter(({ name }) => name.startsWith("QEMU's pair"));
  assert.equal(pairs.length, hasNetwork ? 5 : 3);
  for (const { name, samples } of [kemari, ...rest]) {
    assert.ok(samples.length === 1 && samples[0] > 0, `${name}: ${samples}`);
  }
  const rivals = pairs.filter(({ name }) => !name.endsWith("as it comes"));
  const best = Math.max(...rivals.map(({ samples }) => samples[0]));
  assert.deepEqual(ratio.samples, [kemari.samples[0] / best]);
  const bestName = rivals.find(({ samples }) => samples[0] === best)!.name;
  assert.ok(rates.notes[0].includes(`"${bestName}"`), rates.notes[0]);
  const [stopped, parts] = rates.grids;
  assert.deepEqual(stopped.rows.length, 5 + pairs.length + 4);
  for (const [p50, p99] of stopped.cells) assert.ok(p50[0] > 0 && p99[0] >= p50[0]);
  assert.equal(parts.rows.length, 5);
});

Deno.test("e2e: bench colo sees what QEMU 11.1 keeps of checkpoints that it describes", async () => {
  const kept = await keptKb({ ...await firmware(), devices: VIRTIO_DEVICES }, "send", 400);
  assert.ok(kept > 50 && kept < 200, `${kept} kB`);
});

Deno.test("e2e: bench colo's table has what this QEMU can do, and why it cannot do the rest", async () => {
  const { grids, notes } = await measureTable(context, FROM_SOURCE, ["7.2"]);
  assert.deepEqual(grids.map(({ unit }) => unit), ["1/s", "ms", "ms", "kB"]);
  const [rates, p50, p99] = grids;
  assert.deepEqual(rates.rows, ["QEMU 7.2, KVM", "QEMU 7.2, TCG"]);
  const [[none], [snapshots]] = rates.cells[1].map((samples) => [samples[0]]);
  assert.equal(none, undefined);
  assert.ok(
    notes.some((note) => /^QEMU 7.2, TCG, COLO: none, .*hangs in COLO/.test(note)),
    `${notes}`,
  );
  assert.ok(snapshots > 0);
  assert.ok(p50.cells[1][1][0] > 0 && p99.cells[1][1][0] >= p50.cells[1][1][0]);
  rates.cells.flat().forEach((samples, i) => {
    const name = `${rates.rows[i >> 1]}, ${i % 2 === 0 ? "COLO" : "snapshots"}`;
    assert.equal(
      samples.length === 0,
      notes.some((note) => note.startsWith(`${name}: none`)),
      name,
    );
  });
});

Deno.test("e2e: bench soak tells what QEMU and both ends have grown by, over checkpoints", async () => {
  await using bench = new KemariProcess(["bench", "soak", "--checkpoints", "200", "--json"]);
  const { code, stdout, stderr } = await bench.ended(120_000);
  assert.equal(code, 0, stderr);
  const { experiments: [soak] } = decodeBenchReport(new TextDecoder().decode(stdout));
  const grown = soak.series.filter(({ target }) => target !== undefined);
  assert.deepEqual(grown.map(({ name }) => name), [
    "QEMU: grown",
    "kemari protect: grown",
    "kemari recv: grown",
  ]);
  const [{ curves }] = soak.charts!;
  assert.deepEqual(curves.map(({ name }) => name), ["QEMU", "kemari protect", "kemari recv"]);
  for (const { points } of curves) {
    assert.ok(points.at(-1)![0] >= 200, stderr);
    assert.ok(points.every(([x], i) => i === 0 || x >= points[i - 1][0]));
  }
});

Deno.test("e2e: bench colo that is interrupted leaves nothing behind", () =>
  leavesNothing(["bench", "colo", "--quick", "--progress", "always"], /colo: 2 of/));
