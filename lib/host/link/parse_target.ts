import type { LinkSecurity } from "../../decisions/link_security.ts";
import { UsageError } from "../../errors.ts";
import { type Address, parseAddress } from "../system/address.ts";
import { DEFAULT_SSH, type SshOptions } from "../system/ssh_address.ts";

/** Where a sender finds its secondary. */
export type Target = Exclude<Address, { kind: "stdio" }>;

/**
 * Reads a sender's target, and looks whether what stands beside it on the command line fits.
 *
 * @throws {UsageError}
 */
export function parseTarget(
  { target: text, security, ssh = DEFAULT_SSH }: {
    readonly target: string;
    readonly security: LinkSecurity;
    readonly ssh?: SshOptions;
  },
): Target {
  const target = parseAddress(text, ssh);
  if (target.kind === "stdio") {
    throw new UsageError("stdio: cannot be a target: stdin and stdout are not this command's own", {
      hint: "use exec:COMMAND to speak through another program's stdin and stdout",
    });
  }
  if (target.kind !== "ssh") {
    const given = [
      ...(ssh.overSsh ? ["--over-ssh"] : []),
      ...(ssh.startRecv === undefined ? [] : ["--recv"]),
      ...(ssh.ssh === DEFAULT_SSH.ssh ? [] : ["--ssh"]),
      ...(ssh.remoteKemari === DEFAULT_SSH.remoteKemari ? [] : ["--remote-kemari"]),
    ];
    if (given.length === 0) return target;
    throw new UsageError(`${given.join(", ")}: this target is not reached by ssh`, {
      hint: "write ssh:[USER@]HOST[:PATH] as the target, or leave that out",
    });
  }
  if (security.kind === "plain" && !security.crossesNetworks) return target;
  throw new UsageError("ssh: makes a key for each session by itself", {
    hint: "leave out --key, --tls-dir and --plain, or write HOST:PORT as the target",
  });
}
