/** `kemari bench` and `kemari bench compare`, as they may be written. */
import { type Command, Option } from "@commander-js/extra-typings";
import { helpAfter } from "./help_text.ts";
import {
  type BenchCompareOptions,
  type BenchOptions,
  checkSizes,
  parseCount,
  parseIoSizeBytes,
  parseLinkRates,
  parseRecordSizes,
} from "./options.ts";
import { json, logFormat, named, progress, quiet } from "./shared_options.ts";

export function addBenchCommands(
  program: Command,
  run: (options: BenchOptions) => Promise<void>,
  compare: (options: BenchCompareOptions) => Promise<void>,
): void {
  const bench = program.command("bench")
    .description("run the experiments and micro-benchmarks")
    .argument("[names...]", 'which ones; all but soak if none is named, or with "all"')
    .option("--out <folder>", "write JSON and tables here, after every experiment")
    .addOption(new Option("--quick", "fewer samples, smaller guests").default(false))
    .addOption(
      new Option("--full", "more samples, larger files, every record size")
        .default(false).conflicts("quick"),
    )
    .addOption(
      new Option("--link <rates>", "sync links to measure over: 1G, 10G, none, with commas between")
        .argParser(named("--link", parseLinkRates)),
    )
    .addOption(
      new Option("--rounds <n>", "how often everything is measured, where there are rounds")
        .argParser(named("--rounds", parseCount)),
    )
    .addOption(
      new Option("--seconds <s>", "how long one workload or job runs each time")
        .argParser(named("--seconds", parseCount)),
    )
    .addOption(
      new Option("--checkpoints <n>", "how many a soak makes (default: 200000)")
        .argParser(named("--checkpoints", parseCount)),
    )
    .addOption(
      new Option("--file-size <size>", "iozone's file").argParser(
        named("--file-size", parseIoSizeBytes),
      ),
    )
    .addOption(
      new Option("--record-sizes <sizes>", "iozone's records, with commas between")
        .argParser(named("--record-sizes", parseRecordSizes)),
    )
    .addOption(json)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("bench"))
    .action((names, { out, link, fileSize, recordSizes, ...rest }) => {
      checkSizes(fileSize, recordSizes);
      return run({
        ...rest,
        names,
        links: link,
        outFolder: out,
        fileBytes: fileSize,
        recordBytes: recordSizes,
      });
    })
    .enablePositionalOptions();

  bench.command("compare")
    .description("tell what changed between two runs beyond noise")
    .argument("<A>", "the run before: its bench.json, or its folder")
    .argument("<B>", "the run after")
    .argument("[names...]", "experiments to compare; all that both have if none is named")
    .addOption(json)
    .addOption(logFormat).addOption(quiet).addOption(progress)
    .addHelpText("after", helpAfter("benchCompare"))
    .action((before, after, names, options) => compare({ ...options, before, after, names }));
}
