import { defineCommand } from "../command.ts";
import { optionGroup } from "../options/option_group.ts";

const key = optionGroup("Key", (command) =>
  command.option(
    "--identity <name>",
    "what the key is called; senders say this name in the clear",
    "kemari",
  ));

export const keygen = defineCommand({
  name: "keygen",
  summary: "make a key that both ends of a link have: for --key",
  arguments: (command) => command.argument("<file>", "the file to make; it must not exist"),
  groups: [key],
  help: {
    examples: [
      `kemari keygen /etc/kemari.key  # then scp -p /etc/kemari.key secondary:/etc/`,
    ],
    notes: [
      {
        title: "Keys",
        parts: [
          `The file has a line IDENTITY:KEY, with 256 random bits in hexadecimal, as QEMU's
            tls-creds-psk, libvirt and GnuTLS' psktool have it. Only its owner can read it. Copy it
            to the other host in a way that nobody can listen to.`,
          `A sender uses the first key of its file; recv knows all of its own. So a key is replaced
            without a pause: append the new one to recv's file, put it first in the sender's, and
            take the old one away later. Each connection looks at the files anew.`,
        ],
      },
    ],
    exits: {
      done: "the file was made",
      connection: "the file is there already, or cannot be written",
    },
  },
  async run([file], { identity }) {
    const { makeKeyFile } = await import("../../host/keygen.ts");
    makeKeyFile(file, identity);
  },
});
