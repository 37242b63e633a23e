/** For tests: runs an experiment of `workload_rounds.ts` as a user would, as short as possible. */
import assert from "node:assert/strict";
import { netLabMissing } from "../../lib/lab/network/net_lab.ts";
import { leavesNothing } from "../../lib/lab/testing/leaves_nothing.ts";
import { KemariProcess } from "../../lib/lab/program/kemari_process.ts";
import { type BenchExperiment, decodeBenchReport } from "../../lib/report/bench_result.ts";

/** Whether guests have a network of their own here. */
export const hasNetwork = await netLabMissing() === undefined;

/** The names of the workloads that are measured here, in order. */
export const WORKLOADS = ["idle", "iozone", ...(hasNetwork ? ["request/response"] : [])];

/**
 * With a smaller file, starting iozone takes most of the second, which may then contain no write.
 */
const SETTINGS = ["--quick", "--seconds", "1", "--file-size", "1M"];

/** Interrupts `kemari bench NAME` in its second row; no process or file may be left. */
export function interruptRounds(name: string): Promise<void> {
  const words = ["bench", name, ...SETTINGS, "--progress", "always"];
  return leavesNothing(words, new RegExp(`${name}: 2 of`));
}

/** The report of `kemari bench NAME` for one second of each workload. */
export async function quickRounds(name: string): Promise<BenchExperiment> {
  await using bench = new KemariProcess(["bench", name, ...SETTINGS, "--json"]);
  const { code, stdout, stderr } = await bench.ended(240_000);
  assert.equal(code, 0, stderr);
  return decodeBenchReport(new TextDecoder().decode(stdout)).experiments[0];
}
