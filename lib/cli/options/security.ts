import { chooseSecurity } from "../../decisions/link_security.ts";
import type { Note } from "../help_tail.ts";
import { optionGroup, repeatable } from "./option_group.ts";

/** Authentication and encryption of the link. */
export const security = optionGroup(
  "Security",
  (command) =>
    command
      .option("--key <file>", "encrypt the link, with a key that both ends have: see kemari keygen")
      .option("--tls-dir <folder>", "encrypt the link, with certificates, by QEMU's file names")
      .addOption(
        repeatable(
          "--tls-name <name>",
          "a name that the other end's certificate may bear, instead of the target's host",
        ),
      )
      .option(
        "--plain",
        "let a link that crosses a network be readable and open to everybody there",
      ),
  ({ key, tlsDir, tlsName, plain }) => ({
    security: chooseSecurity({ key, tlsDir, tlsName, plain }),
  }),
);

/** The part of the commands' help. */
export const SECURITY: Note = {
  title: "Security",
  parts: [
    `The VM's memory crosses the link, with every key in it; and a sender on the link can give the
      secondary a VM to run. HOST:PORT beyond this host's loopback therefore takes --key,
      --tls-dir, or --plain for a network that nobody else can reach. Both ends need the same.
      Encryption is TLS 1.3, by the system's OpenSSL 3.`,
    `A target ssh:HOST needs none of them. A recv that has a --control socket, and none of them,
      lets in only senders that come by ssh; one that has --key or --tls-dir lets these in too.`,
    {
      "--key": `a file with lines IDENTITY:KEY, as QEMU and libvirt have it. A sender uses the first
        key; recv knows all of them. Nobody but its owner may be able to read the file.`,
      "--tls-dir": `ca-cert.pem, and ca-crl.pem if there is one; at a sender client-cert.pem and
        client-key.pem, at recv server-cert.pem and server-key.pem. Both ends' certificates are
        verified. recv with --tls-name lets in only senders of these names.`,
    },
    `The files are looked at anew for each connection.`,
  ],
};
