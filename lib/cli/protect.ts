import { UsageError } from "../errors.ts";
import { protect } from "../host/protect/protect.ts";
import { protectVia } from "../host/protect/protect_via.ts";
import type { CommandContext } from "./context.ts";
import type { ProtectOptions } from "./options.ts";
import { parsePrimaryTaps } from "./tap_settings.ts";

export async function run(options: ProtectOptions, context: CommandContext): Promise<void> {
  const settings = { ...options, ...parsePrimaryTaps(options) };
  const { via, control, ...rest } = settings;
  if (via === undefined) return await protect(settings, context.status, context.signal);
  const own = [["--net", options.net.length > 0], ["--disk", options.disk.length > 0], [
    "--control",
    control !== undefined,
  ]].filter(([, given]) => given).map(([name]) => name);
  if (own.length > 0) {
    throw new UsageError(`${own.join(", ")} cannot be given with --via`, {
      hint: `the kemari at ${via} has the VM's taps, and its socket tells the status`,
    });
  }
  // Unless told, what asks for a synchronization depends on disks that only that end knows.
  const syncOn = options.syncOn === undefined ? undefined : settings.syncOn;
  await protectVia(via, { ...rest, syncOn }, context.status, context.signal);
}
