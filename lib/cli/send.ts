import { send } from "../host/send.ts";
import type { CommandContext } from "./context.ts";
import type { SendOptions } from "./options.ts";
import { parsePrimaryTaps } from "./tap_settings.ts";

export async function run(options: SendOptions, context: CommandContext): Promise<void> {
  const settings = { ...options, ...parsePrimaryTaps(options) };
  await send(settings, context.status, context.signal);
}
