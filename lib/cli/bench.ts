import { getLogger } from "@logtape/logtape";
import { runBench } from "../../bench/run_bench.ts";
import { checkPlaces, saveReport } from "../../bench/save_report.ts";
import type { CommandContext } from "./context.ts";
import type { BenchOptions } from "./options.ts";

const log = getLogger(["kemari", "bench"]);

export async function run(options: BenchOptions, context: CommandContext): Promise<void> {
  checkPlaces(options);
  const { signal, status } = context;
  const say = (text: string) => status.isShown ? status.set(text) : log.info("{text}", { text });
  const report = await runBench(options.names, { quick: options.quick, signal, say });
  status.clear();
  context.writeOut(saveReport(report, options));
}
