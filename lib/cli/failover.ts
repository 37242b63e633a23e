import { EXIT, RelayedError, WireError } from "../errors.ts";
import { askControl } from "../host/system/control.ts";
import type { CommandContext } from "./context.ts";
import type { FailoverOptions } from "./options.ts";

export async function run(options: FailoverOptions, context: CommandContext): Promise<void> {
  const answer = await askControl(options.socket, "failover", context.signal, undefined, {
    stale: options.stale,
  });
  if (answer?.ok === true) return;
  if (typeof answer?.error !== "string") {
    throw new WireError(
      "transaction",
      0,
      "bad-value",
      `${options.socket}: the answer is not kemari's`,
      { hint: "name the socket that was given to kemari recv as --control" },
    );
  }
  // Whatever else has happened there: from here, that end cannot take over.
  const code = answer.exitCode === EXIT.qemu ? EXIT.qemu : EXIT.connection;
  throw new RelayedError(code, `${options.socket}: ${answer.error}`, {
    party: "control",
    hint: answer.hint === undefined ? undefined : String(answer.hint),
  });
}
