import { EXIT, RelayedError } from "../errors.ts";
import { askFailover } from "../host/system/ask_control.ts";
import type { CommandContext } from "./context.ts";
import type { FailoverOptions } from "./options.ts";

export async function run(options: FailoverOptions, context: CommandContext): Promise<void> {
  const { socket, stale } = options;
  try {
    await askFailover(socket, { stale, signal: context.signal });
  } catch (error) {
    if (!(error instanceof RelayedError)) throw error;
    // Whatever else has happened there: from here, that end cannot take over.
    const code = error.exitCode === EXIT.qemu ? EXIT.qemu : EXIT.connection;
    throw new RelayedError(code, error.message, { party: "control", hint: error.hint });
  }
}
