import { getLogger } from "@logtape/logtape";
import { ALL, runBench } from "../../bench/run_bench.ts";
import { checkPlace, saveCharts, saveReport } from "../../bench/save_report.ts";
import { encodeBenchReport } from "../report/bench_result.ts";
import { formatBenchReport } from "../report/bench_table.ts";
import type { CommandContext } from "./context.ts";
import type { BenchOptions } from "./options.ts";

const log = getLogger(["kemari", "bench"]);

export async function run(options: BenchOptions, context: CommandContext): Promise<void> {
  const { names, full, outFolder, json } = options;
  const { links, rounds, seconds, checkpoints, fileBytes, recordBytes } = options;
  if (outFolder !== undefined) checkPlace(outFolder);
  const { signal, status } = context;
  const say = (text: string) => status.isShown ? status.set(text) : log.info("{text}", { text });
  const quick = options.quick || names.includes(ALL) && !full;
  const settings = { quick, full, links, rounds, seconds, checkpoints, fileBytes, recordBytes };
  const { report, failure } = await runBench(names, settings, {
    signal,
    say,
    save: (soFar) => outFolder === undefined ? undefined : saveReport(soFar, outFolder),
  });
  if (outFolder !== undefined) {
    say("drawing the charts");
    log.info("{file}", { file: await saveCharts(report, outFolder) });
  }
  status.clear();
  context.writeOut(json ? encodeBenchReport(report) : formatBenchReport(report));
  if (failure !== undefined) throw failure;
}
