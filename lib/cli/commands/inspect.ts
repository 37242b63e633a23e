import { defineCommand } from "../command.ts";
import { flag, optionGroup } from "../options/option_group.ts";
import { json, OUTPUT } from "../options/output.ts";

const fields = optionGroup(OUTPUT, (command) =>
  command.addOption(
    flag("--fields", "also print the fields of every device (JSON always has them)"),
  ));

export const inspect = defineCommand({
  name: "inspect",
  summary: "print what is in a migration stream",
  arguments: (command) => command.argument("<file>", `the stream; "-" reads stdin`),
  groups: [fields, json],
  help: {
    examples: [
      "kemari inspect vm.stream",
      "kemari inspect vm.stream --fields | less",
      "kemari inspect vm.stream --json | jq '.streams[0].ramBlocks'",
      "zstd -dc vm.stream.zst | kemari inspect -",
    ],
    notes: [{
      title: "Files",
      parts: [
        `A file may hold several streams one after another, and COLO checkpoints. What precedes a
          fault is printed; with --json the document is complete, and its .fault describes the
          fault.`,
      ],
    }],
    exits: {
      done: "the whole file was understood",
      bytes: "the file is not a migration stream, or is cut short or damaged",
      connection: "the file cannot be read",
    },
  },
  /** Prints everything before a fault, then throws the fault. */
  async run([path], options, { writeOut, status, signal }) {
    const { inspectStreamFile, openStreamFile } = await import("../../host/inspect.ts");
    const { InspectJson } = await import("../output/inspect_json.ts");
    const { InspectText } = await import("../output/inspect_text.ts");
    using file = await openStreamFile(path);
    const report = options.json
      ? new InspectJson(file.name, writeOut)
      : new InspectText(writeOut, options.fields);
    const inspection = await inspectStreamFile(file, report, status, signal);
    report.end(inspection);
    if (inspection.failure !== undefined) throw inspection.failure;
  },
});
