import { defineCommand } from "../command.ts";

/** Not for people: `kemari drill` starts it outside of the guest. */
export const drillClient = defineCommand({
  name: "drill-client",
  summary: "talk to the guest of a drill; not for people",
  arguments: (command) => command.argument("<host>", "the guest").argument("<port>", "its service"),
  groups: [],
  async run([host, port], _options, { writeOut }) {
    const { runClient } = await import("../../drill/client.ts");
    await runClient(host, Number(port), writeOut);
  },
});
