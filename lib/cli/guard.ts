import { UsageError } from "../errors.ts";
import { guard } from "../host/protect/guardian.ts";
import type { CommandContext } from "./context.ts";
import type { GuardOptions } from "./options.ts";

/** Not for people: `kemari protect` starts it. */
export function run(options: GuardOptions, _context: CommandContext): Promise<void> {
  const { qmp, action, folder } = options;
  if (action !== "continue" && action !== "stop") throw new UsageError(`no such action: ${action}`);
  return guard(qmp, action, folder);
}
