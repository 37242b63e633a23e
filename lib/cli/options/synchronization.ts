import { choice, optionGroup, parsed } from "./option_group.ts";
import { parseDurationMs, parseSizeBytes } from "../../units.ts";

/** When the primary VM goes on: after the secondary's ACK, or as soon as the checkpoint is read. */
export const commitOption = () =>
  choice(
    "--commit <mode>",
    "sync: the VM goes on when the secondary has acknowledged; async: as soon as the checkpoint " +
      "is read",
    ["sync", "async"],
    "async",
  );

/** When a primary synchronizes, and how far it may be ahead of the secondary. */
export const synchronization = optionGroup(
  "Synchronization",
  (command) =>
    command
      .addOption(commitOption())
      .addOption(
        parsed(
          "--sync-interval <duration>",
          "the longest time between two synchronizations",
          parseDurationMs,
        ).default(100, "100ms"),
      )
      .addOption(
        parsed(
          "--sync-min-interval <duration>",
          "the shortest time between two that held output asks for",
          parseDurationMs,
        ).default(1, "1ms"),
      )
      .option(
        "--sync-on <what>",
        "held output that asks for a synchronization: net, disk, net,disk or none " +
          "(default: net, and disk where an image is shared)",
      )
      .addOption(
        parsed(
          "--max-in-flight <size>",
          "bytes not yet acknowledged above which QEMU has to wait",
          parseSizeBytes,
        ).default(64 * 2 ** 20, "64M"),
      ),
  ({ syncInterval, syncMinInterval, maxInFlight, ...rest }) => ({
    ...rest,
    syncIntervalMs: syncInterval,
    syncMinIntervalMs: syncMinInterval,
    maxInFlightBytes: maxInFlight,
  }),
);
