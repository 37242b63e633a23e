import { defineCommand } from "../command.ts";
import { flag, optionGroup } from "../options/option_group.ts";
import { json, OUTPUT } from "../options/output.ts";

/** Time between two reports of `--watch`, in milliseconds. */
const WATCH_MS = 1000;

const watch = optionGroup(
  OUTPUT,
  (command) => command.addOption(flag("-w, --watch", "print again every second")),
);

export const status = defineCommand({
  name: "status",
  summary: "print how a running send, recv or protect is doing",
  arguments: (command) => command.argument("<socket>", "its --control socket: PATH or unix:PATH"),
  groups: [json, watch],
  help: {
    examples: [
      "kemari status /run/kemari.ctl",
      "kemari status /run/kemari.ctl --json | jq .lastCommitted",
      "kemari status /run/kemari.ctl --watch",
    ],
    exits: {
      done: "the status was printed",
      bytes: "something other than kemari answered",
      connection: "nothing answers at the socket",
    },
  },
  async run([socket], options, { writeOut, signal }) {
    const { askStatus } = await import("../../host/system/ask_control.ts");
    const { delay } = await import("../../host/system/delay.ts");
    const { formatStatus } = await import("../output/status_text.ts");
    for (let round = 1;; round++) {
      const status = await askStatus(socket, signal);
      if (options.json) writeOut(JSON.stringify(status, null, options.watch ? 0 : 2) + "\n");
      else writeOut((round > 1 ? "\n" : "") + formatStatus(status));
      if (!options.watch) return;
      await delay(WATCH_MS, signal);
    }
  },
});
