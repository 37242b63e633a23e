import { recv } from "../host/recv.ts";
import type { CommandContext } from "./context.ts";
import type { RecvOptions } from "./options.ts";
import { parseTaps, parseWords } from "./tap_settings.ts";

export async function run(options: RecvOptions, context: CommandContext): Promise<number> {
  const words = parseWords("--replay", options.replay, ["net", "disk", "input"]);
  const replay = {
    net: words.includes("net"),
    disk: words.includes("disk"),
    input: words.includes("input"),
  };
  const settings = { ...options, ...parseTaps(options), replay };
  return await recv(settings, context.status, context.signal);
}
