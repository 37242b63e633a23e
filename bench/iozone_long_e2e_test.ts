import assert from "node:assert/strict";
import { KemariProcess } from "../lib/lab/program/kemari_process.ts";
import { decodeBenchReport } from "../lib/report/bench_result.ts";
import {
  KEMARI_2010,
  KEMARI_DEFAULT,
  QEMU_PAIR,
  QEMU_PAIR_AS_IT_COMES,
  UNPROTECTED,
} from "./guest_setups.ts";
import { IOZONE_OPERATIONS } from "./iozone_program.ts";
import { leavesNothing } from "../lib/lab/testing/leaves_nothing.ts";

const PROTECTED = [KEMARI_2010, KEMARI_DEFAULT, QEMU_PAIR, QEMU_PAIR_AS_IT_COMES];

Deno.test("e2e: bench iozone measures every way of keeping a guest, and sees it stand still", async () => {
  await using bench = new KemariProcess(
    ["bench", "iozone", "--quick", "--rounds", "1", "--file-size", "512K", "--json"],
  );
  const { code, stdout, stderr } = await bench.ended(180_000);
  assert.equal(code, 0, stderr);
  const { experiments: [iozone] } = decodeBenchReport(new TextDecoder().decode(stdout));
  assert.equal(iozone.conditions["file size"], "512 KiB");
  const [rates, ratios, meanwhile] = iozone.grids!;
  assert.deepEqual(rates.columns, IOZONE_OPERATIONS);
  for (const row of rates.cells) {
    for (const samples of row) assert.ok(samples.length === 1 && samples[0] > 0, stderr);
  }
  const base = rates.cells[rates.rows.indexOf(UNPROTECTED.name)];
  ratios.rows.forEach((name, i) => {
    const own = rates.cells[rates.rows.indexOf(name)];
    assert.deepEqual(ratios.cells[i], own.map(([rate], column) => [rate / base[column][0]]));
  });
  meanwhile.rows.forEach((name, i) => {
    const [[stoppedPercent], [syncsPerSecond]] = meanwhile.cells[i];
    const syncs = PROTECTED.some((setup) => setup.name === name);
    assert.equal(syncsPerSecond > 0, syncs, name);
    assert.ok(syncs ? stoppedPercent > 0 && stoppedPercent < 100 : stoppedPercent === 0, name);
  });
});

Deno.test("e2e: bench iozone that is interrupted leaves nothing behind", () =>
  leavesNothing(["bench", "iozone", "--quick", "--progress", "always"], /iozone: 3 of/));
