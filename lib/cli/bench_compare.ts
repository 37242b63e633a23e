import { readReport } from "../../bench/save_report.ts";
import { compareBenchReports } from "../report/bench_compare.ts";
import { formatComparison } from "../report/bench_compare_text.ts";
import type { CommandContext } from "./context.ts";
import type { BenchCompareOptions } from "./options.ts";

export function run(options: BenchCompareOptions, context: CommandContext): void {
  const comparison = compareBenchReports(
    readReport(options.before),
    readReport(options.after),
    options.names,
  );
  context.writeOut(
    options.json ? JSON.stringify(comparison, null, 2) + "\n" : formatComparison(comparison),
  );
}
