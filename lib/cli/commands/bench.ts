import { getLogger } from "@logtape/logtape";
import { UsageError } from "../../errors.ts";
import { defineCommand } from "../command.ts";
import { flag, optionGroup, parsed } from "../options/option_group.ts";
import { json, OUTPUT } from "../options/output.ts";
import { parseCount, parseSizeBytes } from "../../units.ts";
import { benchCompare } from "./bench_compare.ts";

const extent = optionGroup(
  "Extent",
  (command) =>
    command
      .addOption(flag("--quick", "fewer samples, smaller guests"))
      .addOption(
        flag("--full", "more samples, larger files, every record size").conflicts("quick"),
      )
      .addOption(
        parsed(
          "--link <rates>",
          "sync links to measure over: 1G, 10G, none, with commas between",
          parseLinkRates,
        ),
      )
      .addOption(
        parsed(
          "--rounds <n>",
          "how often everything is measured, where there are rounds",
          parseCount,
        ),
      )
      .addOption(
        parsed("--seconds <s>", "how long one workload or job runs each time", parseCount),
      )
      .addOption(
        flag("--key", "encrypt the link; stream and colo: compare that with a plain one"),
      )
      .addOption(
        parsed("--checkpoints <n>", "how many a soak makes (default: 200000)", parseCount),
      ),
  ({ link, ...rest }) => ({ ...rest, links: link }),
);

const iozone = optionGroup(
  "iozone",
  (command) =>
    command
      .addOption(parsed("--file-size <size>", "iozone's file", parseIoSizeBytes))
      .addOption(
        parsed("--record-sizes <sizes>", "iozone's records, with commas between", parseRecordSizes),
      ),
  ({ fileSize, recordSizes }) => {
    checkSizes(fileSize, recordSizes);
    return { fileBytes: fileSize, recordBytes: recordSizes };
  },
);

const folder = optionGroup(
  OUTPUT,
  (command) =>
    command.option("--out <folder>", "write JSON and tables here, after every experiment"),
  ({ out }) => ({ outFolder: out }),
);

export const bench = defineCommand({
  name: "bench",
  summary: "run the experiments and micro-benchmarks",
  arguments: (command) =>
    command.argument("[names...]", 'which ones; all but soak if none is named, or with "all"'),
  groups: [extent, iozone, folder, json],
  subcommands: [benchCompare],
  help: {
    examples: [
      "kemari bench",
      "kemari bench stream --quick --json > samples.json",
      "kemari bench stream colo --key",
      "kemari bench all --out report",
      "kemari bench iozone --link 1G,10G --record-sizes 4K,64K \\\n      --file-size 16M --rounds 5",
      "kemari bench traffic syncs --link 1G --seconds 10 --out report",
      "kemari bench compare report-of-yesterday report",
    ],
    notes: [{
      title: "Experiments",
      parts: [
        {
          start: "the executable's start",
          bitmap: "travelling a guest's dirty pages: byte per page against bit per page",
          writev: "a transaction to a socket: copied, or gathered",
          stream: "a plain stream through both ends, against socat and a pipe",
          compress: "what each --compress makes of checkpoints",
          disk: "the disk tap against nbdkit and QEMU's own file, with fio in the guest",
          net: "the net tap against QEMU straight on the bridge, and protected (needs root)",
          iozone: "file I/O in a guest, unprotected and protected in several ways",
          traffic: "what goes over the sync link, over time and of what kind, with each --compress",
          syncs:
            `synchronizations a second, pauses, commits and held output, against QEMU's own COLO
              pair`,
          colo:
            `checkpoints a second, pauses, and the memory that QEMU keeps, against QEMU's own COLO
              pair; and with every QEMU, accelerator and mode`,
          "compress-live": "each --compress on a real guest, over links of 1 and 10 Gb/s",
          activation: "from fenced to running, warm against cold, and what files for the RAM cost",
          soak: "what grows over hundreds of thousands of checkpoints; only when it is named",
        },
        `Experiments run one after another; "all" uses the quick settings unless --full is given.
          An experiment that fails does not keep the others from running. Ctrl-C leaves in --out
          what was measured until then.`,
      ],
    }],
    exits: {
      done: "every experiment ran",
      bytes: "a stream was at fault",
      connection: "a connection, file or process failed",
      qemu: "QEMU refused or could not be set up",
    },
  },
  async run([names], options, context) {
    const { ALL, runBench } = await import("../../../bench/run_bench.ts");
    const { checkPlace, saveCharts, saveReport } = await import("../../../bench/save_report.ts");
    const { encodeBenchReport } = await import("../../report/bench_result.ts");
    const { formatBenchReport } = await import("../../report/bench_table.ts");
    const log = getLogger(["kemari", "bench"]);
    const { full, outFolder, json } = options;
    const { links, rounds, seconds, checkpoints, key, fileBytes, recordBytes } = options;
    if (outFolder !== undefined) checkPlace(outFolder);
    const { signal, status } = context;
    const say = (text: string) => status.isShown ? status.set(text) : log.info("{text}", { text });
    const quick = options.quick || names.includes(ALL) && !full;
    const settings = {
      ...{ quick, full, links, rounds, seconds, checkpoints, key },
      ...{ fileBytes, recordBytes },
    };
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
  },
});

/**
 * Reads `--link`: `1G,10G,none`.
 *
 * @throws {UsageError} Another word.
 */
function parseLinkRates(text: string): ("none" | "1G" | "10G")[] {
  return [...new Set(text.split(",").map((word) => word.trim()))].map((word) => {
    if (word === "none" || word === "1G" || word === "10G") return word;
    throw new UsageError(`"${word}" is no link`, { hint: "There are 1G, 10G and none" });
  });
}

/** The largest size of iozone's file: the guest's disk is made for it. */
const MAX_FILE_BYTES = 4 * 2 ** 30;

/**
 * Reads a size for iozone: whole KiB, at least 4 KiB, since direct I/O is in blocks.
 *
 * @throws {UsageError} Another size.
 */
export function parseIoSizeBytes(text: string): number {
  const sizeBytes = parseSizeBytes(text);
  if (sizeBytes % 4096 === 0 && sizeBytes <= MAX_FILE_BYTES) return sizeBytes;
  throw new UsageError(`"${text}" is no size for iozone`, {
    hint: "Write a multiple of 4K, 4G at the most",
  });
}

/**
 * Reads `--record-sizes`: `4K,64K,1M`.
 *
 * @throws {UsageError} A size that iozone does not accept; its largest record is 16 MiB.
 */
export function parseRecordSizes(text: string): number[] {
  return [...new Set(text.split(",").map(parseIoSizeBytes))].map((sizeBytes) => {
    if (sizeBytes <= 16 * 2 ** 20) return sizeBytes;
    throw new UsageError("iozone's records have 16M at the most");
  });
}

/**
 * Refuses records larger than the file.
 *
 * @throws {UsageError}
 */
export function checkSizes(fileBytes?: number, recordBytes: readonly number[] = []): void {
  if (fileBytes === undefined || recordBytes.every((bytes) => bytes <= fileBytes)) return;
  throw new UsageError("--record-sizes: a record is larger than --file-size");
}
