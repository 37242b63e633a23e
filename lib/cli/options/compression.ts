import { Option } from "@commander-js/extra-typings";
import type { Note } from "../help_tail.ts";
import { choice, optionGroup, parsed } from "./option_group.ts";
import { parseSizeBytes } from "../../units.ts";

/** How a primary compresses QEMU's stream. */
export const compression = optionGroup(
  "Compression",
  (command) =>
    command
      .addOption(
        choice(
          "--compress <mode>",
          "none: QEMU's own bytes; zstd: everything packed; delta: what changed in each page, " +
            "packed; auto: whatever commits soonest on this link",
          ["none", "zstd", "delta", "auto"],
          "none",
        ),
      )
      .addOption(
        new Option(
          "--dedup",
          "leave out pages that have not changed (default with delta and auto)",
        ),
      )
      .addOption(new Option("--no-dedup", "send unchanged pages too"))
      .addOption(
        parsed(
          "--delta-cache <size>",
          "memory for copies of the pages sent last, taken as they come",
          parseSizeBytes,
        ).default(256 * 2 ** 20, "256M"),
      ),
  ({ deltaCache, ...rest }) => ({ ...rest, deltaCacheBytes: deltaCache }),
);

/** What each mode does, and its cost. */
export const COMPRESSION: Note = {
  title: "Compression",
  parts: [
    {
      delta:
        `A page that was sent before is sent as its difference, or not at all if unchanged; then
          everything is packed with zstd. Copies of pages take memory up to --delta-cache, and 4
          bytes for each page of RAM.`,
      zstd: "Everything is packed. Packing takes up to 64 MiB at each end.",
      auto: `The one of these, or none, that commits soonest on this link, which is measured all
        the time.`,
      none: `QEMU's own bytes, sent while QEMU still writes: on a link of 10 Gb/s this commits
        soonest.`,
    },
    `With --commit async, pages are compressed after the VM has been let go on. A secondary that
      cannot take packed frames gets them unpacked.`,
  ],
};
