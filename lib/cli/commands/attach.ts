import { defineCommand } from "../command.ts";
import { optionGroup } from "../options/option_group.ts";

const start = optionGroup(
  "Start",
  (command) =>
    command.option(
      "--start <arguments>",
      "start kemari recv with these arguments, and this control socket, if none answers there",
    ),
);

export const attach = defineCommand({
  name: "attach",
  summary: "bring a sender that comes by ssh to the kemari recv of this host; ssh runs this",
  arguments: (command) =>
    command.argument("<socket>", "the recv's --control socket: PATH or unix:PATH"),
  groups: [start],
  help: {
    examples: [
      "kemari attach /run/vm1.ctl  # what a sender's ssh:HOST:/run/vm1.ctl runs",
      `command="kemari attach /run/kemari.ctl",restrict ssh-ed25519 …
      # in authorized_keys: this key can do nothing else`,
    ],
    notes: [
      {
        title: "How it works",
        parts: [
          `A sender's ssh:[USER@]HOST[:PATH] logs in at HOST, and runs this command there. The sender
            says over ssh what it wants. Either it brings a key, made for this one session: then it
            is told where recv listens, and connects there by TLS with that key, within a minute.
            Or, with --over-ssh, recv is handed this command's stdin and stdout for the session, and
            this command waits for its end.`,
          `Whoever logs in needs the right to use the control socket: as the user that runs recv,
            as root, or by --remote-kemari "sudo kemari" at the sender.`,
          `A recv that --start has started goes on without ssh, and without this command. It logs to
            the socket's path with .log behind it. It needs --exec or --standby among its
            arguments.`,
        ],
      },
    ],
    exits: {
      done: "the sender was told where to connect; or its session over ssh has ended",
      bytes: "something other than kemari answers at the socket",
      connection: "nothing answers at the socket, the recv refuses, or no sender has come",
    },
  },
  async run([socket], { start }, { signal }) {
    const { attach } = await import("../../host/attach.ts");
    return await attach(socket, start, signal);
  },
});
