import { DEFAULT_SSH, type SshOptions } from "../../host/system/ssh_address.ts";
import type { Note } from "../help_tail.ts";
import { flag, optionGroup } from "./option_group.ts";

/** How to connect to `ssh:HOST`. */
export const ssh = optionGroup(
  "ssh",
  (command) =>
    command
      .option("--ssh <command>", "the ssh to run, with its arguments", DEFAULT_SSH.ssh)
      .option(
        "--remote-kemari <command>",
        "what starts kemari on the other host",
        DEFAULT_SSH.remoteKemari,
      )
      .option(
        "--recv <arguments>",
        "start kemari recv there with these arguments if none answers at PATH",
      )
      .addOption(
        flag("--over-ssh", "keep the session on ssh's own connection: no port has to be reached"),
      ),
  ({ ssh, remoteKemari, overSsh, recv: startRecv }): { readonly ssh: SshOptions } => ({
    ssh: { ssh, remoteKemari, overSsh, ...(startRecv === undefined ? {} : { startRecv }) },
  }),
);

/** The part of the commands' help. */
export const SSH: Note = {
  title: "By ssh",
  parts: [
    `ssh:[USER@]HOST[:PATH] needs no key file: whoever can log in at HOST, and may use the control
      socket PATH of the kemari recv there (default: /run/kemari.ctl), is let in. The user's own ssh
      is run, with all that ~/.ssh/config says of HOST. It runs kemari attach PATH there, hands it a
      key that was made for this session, and ends; the session goes by TLS, with that key, to the
      address at which recv listens, or, if that is 0.0.0.0 or [::], to where ssh has found HOST.`,
    `Under QEMU or systemd nobody can type a password: use a key without a passphrase, or an agent.
      With --over-ssh all goes through ssh, which takes more of both processors.`,
    `With --recv "0.0.0.0:4000 --exec …", a recv that is not there is started, and then goes on by
      itself, whatever becomes of ssh. A recv that an administrator has made a service of is better:
      its host starts it again.`,
  ],
};
