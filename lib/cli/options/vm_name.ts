import { optionGroup } from "./option_group.ts";

/** A primary's name for its VM. */
export const vmName = optionGroup("VM", (command) =>
  command
    .option(
      "--vm <name>",
      "what names this VM to the secondary, which keeps one VM's replica " +
        "(default: QEMU's UUID and name)",
    )
    .option("--session-name <name>", "name of this VM in logs and status"));
