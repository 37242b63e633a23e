import { flag, optionGroup } from "./option_group.ts";

/** The heading of the options for a command's answer on stdout. */
export const OUTPUT = "Output";

/** For a command whose answer is for people or for scripts. */
export const json = optionGroup(
  OUTPUT,
  (command) => command.addOption(flag("--json", "print JSON")),
);
