/** Options that several commands take. */
import { Option } from "@commander-js/extra-typings";
import { KemariError, UsageError } from "../errors.ts";
import { parseDurationMs, parseSizeBytes } from "./options.ts";

/** A parser whose complaint names the option. */
export function named<T>(option: string, parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof KemariError)) throw error;
      throw new UsageError(`${option}: ${error.message}`, { hint: error.hint });
    }
  };
}

export const logFormat = new Option("--log-format <format>", "how to log on stderr")
  .choices(["text", "json"] as const).default("text" as const);
export const quiet = new Option("-q, --quiet", "warnings and errors only").default(false);
export const progress = new Option("--progress <when>", "show a status line on stderr")
  .choices(["auto", "always", "never"] as const).default("auto" as const);
export const commit = new Option(
  "--commit <mode>",
  "let the VM run on after the secondary's ACK (sync), or as soon as the checkpoint is read (async)",
).choices(["sync", "async"] as const).default("async" as const);
/**
 * With a heartbeat every 100 ms, the longest silence between two idle ends on two busy cores was
 * 516 ms in 62 minutes, and 911 ms in 36 others, under a load of up to 15 (measured). The grace time
 * is more than three times that.
 */
export const heartbeat = new Option("--heartbeat <duration>", "time between two heartbeats")
  .argParser(named("--heartbeat", parseDurationMs)).default(100, "100ms");
export const grace = new Option("--grace <duration>", "silence after which the peer counts as lost")
  .argParser(named("--grace", parseDurationMs)).default(3000, "3s");
export const control = new Option(
  "--control <path>",
  "Unix socket for kemari status and failover: PATH or unix:PATH",
);
export const maxInFlight = new Option(
  "--max-in-flight <size>",
  "bytes not yet acknowledged above which QEMU has to wait",
).argParser(named("--max-in-flight", parseSizeBytes)).default(64 * 2 ** 20, "64M");
export const compress = new Option(
  "--compress <mode>",
  "send the replica's difference to each page (delta), everything packed (zstd), " +
    "what commits soonest on this link (auto), or QEMU's own bytes (none)",
).choices(["none", "zstd", "delta", "auto"] as const).default("none" as const);
export const dedup = new Option(
  "--dedup",
  "leave out pages that have not changed (default with delta and auto)",
);
export const noDedup = new Option("--no-dedup", "send them");
export const deltaCache = new Option(
  "--delta-cache <size>",
  "memory for copies of the pages sent last, taken as they come",
).argParser(named("--delta-cache", parseSizeBytes)).default(256 * 2 ** 20, "256M");
export const sessionName = new Option(
  "--session-name <name>",
  "name of this VM in logs and status",
);
const repeated = (value: string, before: string[]) => [...before, value];
export const net = new Option(
  "--net <tap>",
  "a NIC: NAME=unix:PATH,tap:IFNAME or NAME=unix:PATH,unix:PATH",
)
  .argParser(repeated).default([] as string[], "none");
export const disk = new Option(
  "--disk <tap>",
  "a disk: NAME=PATH,unix:SOCK[,mode=replicated|shared]",
).argParser(repeated).default([] as string[], "none");
export const diskSync = new Option(
  "--disk-sync <what>",
  "copy replicated disks to the secondary first, or not",
).choices(["full", "none"] as const).default("full" as const);
export const syncOn = new Option(
  "--sync-on <what>",
  "held output that asks for a synchronization: net, disk, net,disk or none " +
    "(default: net, and disk where an image is shared)",
);
export const syncInterval = new Option(
  "--sync-interval <duration>",
  "the longest time between two synchronizations",
).argParser(named("--sync-interval", parseDurationMs)).default(100, "100ms");
export const syncMinInterval = new Option(
  "--sync-min-interval <duration>",
  "the shortest time between two that held output asks for",
).argParser(named("--sync-min-interval", parseDurationMs)).default(1, "1ms");
export const json = new Option("--json", "print JSON").default(false);
