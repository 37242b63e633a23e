import { defineCommand } from "../command.ts";

/** Not for people: `kemari bench traffic` and `syncs` start it outside of the guest. */
export const benchClient = defineCommand({
  name: "bench-client",
  summary: "ask the guest of an experiment for pages; not for people",
  arguments: (command) =>
    command.argument("<host>", "the guest").argument("<port>", "its web server"),
  groups: [],
  async run([host, port], _options, { writeOut }) {
    const { runWebClient } = await import("../../../bench/web_client.ts");
    await runWebClient(host, Number(port), writeOut);
  },
});
