import { inspectStreamFile, openStreamFile } from "../host/inspect.ts";
import type { CommandContext } from "./context.ts";
import { InspectJson } from "./inspect_json.ts";
import { InspectText } from "./inspect_text.ts";
import type { InspectOptions } from "./options.ts";

/** Prints what is in a migration file; a fault is thrown behind everything that precedes it. */
export async function run(options: InspectOptions, context: CommandContext): Promise<void> {
  using file = await openStreamFile(options.file);
  const report = options.json
    ? new InspectJson(file.name, context.writeOut)
    : new InspectText(context.writeOut, options.fields);
  const inspection = await inspectStreamFile(file, report, context.status, context.signal);
  report.end(inspection);
  if (inspection.failure !== undefined) throw inspection.failure;
}
