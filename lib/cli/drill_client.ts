import { runClient } from "../drill/client.ts";
import type { CommandContext } from "./context.ts";
import type { DrillClientOptions } from "./options.ts";

/** Not for people: `kemari drill` starts it outside of the guest. */
export function run(options: DrillClientOptions, context: CommandContext): Promise<void> {
  return runClient(options.host, Number(options.port), context.writeOut);
}
