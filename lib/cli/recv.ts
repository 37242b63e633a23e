import { recv } from "../host/recv.ts";
import type { CommandContext } from "./context.ts";
import type { RecvOptions } from "./options.ts";
import { parseClasses, parseTaps } from "./tap_settings.ts";

export async function run(options: RecvOptions, context: CommandContext): Promise<number> {
  const classes = parseClasses("--replay", options.replay);
  const replay = { net: classes.includes("net"), disk: classes.includes("disk") };
  const settings = { ...options, ...parseTaps(options), replay };
  return await recv(settings, context.status, context.signal);
}
