import { protect } from "../host/protect.ts";
import type { CommandContext } from "./context.ts";
import type { ProtectOptions } from "./options.ts";
import { parsePrimaryTaps } from "./tap_settings.ts";

export async function run(options: ProtectOptions, context: CommandContext): Promise<void> {
  const settings = { ...options, ...parsePrimaryTaps(options) };
  await protect(settings, context.status, context.signal);
}
