import { defineCommand } from "../command.ts";
import { json } from "../options/output.ts";

export const benchCompare = defineCommand({
  name: "compare",
  summary: "tell what changed between two runs beyond noise",
  arguments: (command) =>
    command
      .argument("<A>", "the run before: its bench.json, or its folder")
      .argument("<B>", "the run after")
      .argument("[names...]", "experiments to compare; all that both have if none is named"),
  groups: [json],
  help: {
    examples: [
      "kemari bench compare before/ after/",
      "kemari bench compare before/bench.json after/bench.json stream --json",
    ],
    notes: [{
      title: "What counts as changed",
      parts: [
        `A and B are a run's bench.json, or the folder that --out named. A quantity has changed
          when its samples are ranked apart beyond chance (Mann–Whitney, p < 0.05) and its medians
          differ by more than 3 % and by more than both sides' spreads together. Runs of different
          machines, kernels, QEMUs, links or settings are not compared; different commits are.`,
      ],
    }],
    exits: {
      done: "compared, whether anything changed or not",
      usage: "a file is no result, or the runs were made under different conditions",
      connection: "a file cannot be read",
    },
  },
  async run([before, after, names], options, context) {
    const { readReport } = await import("../../../bench/save_report.ts");
    const { compareBenchReports } = await import("../../report/bench_compare.ts");
    const { formatComparison } = await import("../../report/bench_compare_text.ts");
    const comparison = compareBenchReports(readReport(before), readReport(after), names);
    context.writeOut(
      options.json ? JSON.stringify(comparison, null, 2) + "\n" : formatComparison(comparison),
    );
  },
});
