import { runWebClient } from "../../bench/web_client.ts";
import type { CommandContext } from "./context.ts";
import type { DrillClientOptions } from "./options.ts";

/** Not for people: `kemari bench traffic` and `syncs` start it outside of the guest. */
export function run(options: DrillClientOptions, context: CommandContext): Promise<void> {
  return runWebClient(options.host, Number(options.port), context.writeOut);
}
