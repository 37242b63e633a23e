import { choice, flag, optionGroup, type OptionsOf } from "./option_group.ts";

/** A command's output on stderr. Every command takes these options. */
export const logging = optionGroup("Logging and help", (command) =>
  command
    .addOption(choice("--log-format <format>", "how to log on stderr", ["text", "json"], "text"))
    .addOption(flag("-q, --quiet", "warnings and errors only"))
    .addOption(
      choice(
        "--progress <when>",
        "whether a status line is shown on stderr",
        ["auto", "always", "never"],
        "auto",
      ),
    ));

export type LogOptions = OptionsOf<readonly [typeof logging]>;

export type LogFormat = LogOptions["logFormat"];
