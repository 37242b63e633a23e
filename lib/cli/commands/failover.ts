import { EXIT, RelayedError } from "../../errors.ts";
import { defineCommand } from "../command.ts";
import { flag, optionGroup } from "../options/option_group.ts";

const activation = optionGroup("Activation", (command) =>
  command.addOption(
    flag("--stale", "activate even if the replica is known not to be the VM's last state"),
  ));

export const failover = defineCommand({
  name: "failover",
  summary: "tell a waiting secondary to activate now",
  arguments: (command) => command.argument("<socket>", "its --control socket: PATH or unix:PATH"),
  groups: [activation],
  help: {
    examples: ["kemari failover /run/kemari.ctl", "kemari failover /run/kemari.ctl --stale"],
    notes: [{
      title: "Stale replicas",
      parts: [
        `A replica is known not to be the VM's last state when the primary has said that the VM
          goes on there or was shut down, when the session was refused, or when a sender came back
          and went before its first transaction. Activating such a replica loses what clients have
          seen since; and if the VM still runs at the primary, there are then two of it. That is
          refused unless --stale is given. Give --stale only when the primary is known to be dead.`,
      ],
    }],
    exits: {
      done: "activated: the stream has been written, or QEMU has taken it",
      bytes: "something other than kemari answered",
      connection: "nothing answers at the socket, or that end cannot take over",
      qemu: "the QEMU that was given the VM there did not load it",
    },
  },
  async run([socket], { stale }, { signal }) {
    const { askFailover } = await import("../../host/system/ask_control.ts");
    try {
      await askFailover(socket, { stale, signal });
    } catch (error) {
      if (!(error instanceof RelayedError)) throw error;
      // Whatever the reason there: seen from here, that end cannot take over.
      const code = error.exitCode === EXIT.qemu ? EXIT.qemu : EXIT.connection;
      throw new RelayedError(code, error.message, { party: "control", hint: error.hint });
    }
  },
});
