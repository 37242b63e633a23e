/** The command lines of ssh, and the configuration that it prints. */
import type { SshAddress } from "../system/ssh_address.ts";

/** How long ssh may take to connect, in seconds, unless the user's configuration sets a time. */
const CONNECT_TIMEOUT_S = 10;

/** The user's ssh configuration for a host. */
export interface SshConfig {
  /** The real name or address of the host. */
  readonly hostname: string;
  /** Whether a time limit for connecting is set. */
  readonly hasTimeout: boolean;
  /** Whether a remote command is set, which ssh would run instead of ours. */
  readonly hasCommand: boolean;
}

/**
 * Command that makes ssh print its configuration for a host, as lines `keyword value`, without
 * connecting.
 *
 * @see ssh(1), -G
 */
export function configCommand({ destination, options }: SshAddress): string {
  return `exec ${options.ssh} -G -- ${shellQuote(destination)}`;
}

/**
 * Reads what {@link configCommand} prints.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const config = decodeSshConfig("user me\nhostname 192.0.2.7\nconnecttimeout none\n", "me@far");
 * assert.deepEqual(config, { hostname: "192.0.2.7", hasTimeout: false, hasCommand: false });
 * ```
 *
 * @param destination Its host is used if the configuration has no other name.
 */
export function decodeSshConfig(text: string, destination: string): SshConfig {
  const values = new Map(
    text.split("\n").map((line) => /^(\S+) (.+)$/.exec(line)).filter((found) => found !== null)
      .map(([, keyword, value]) => [keyword, value]),
  );
  const isSet = (keyword: string) => (values.get(keyword) ?? "none") !== "none";
  return {
    hostname: values.get("hostname") ?? destination.slice(destination.lastIndexOf("@") + 1),
    hasTimeout: isSet("connecttimeout"),
    hasCommand: isSet("remotecommand"),
  };
}

/**
 * Runs `kemari attach` there. Settings of terminals, forwardings and commands in the user's
 * configuration are for logins by people, and are overridden, as scp and sftp do. An existing
 * shared connection is used, but our own is not shared: it ends with us.
 *
 * @param starts Whether a `kemari recv` may be started there.
 */
export function attachCommand(
  { destination, path, options }: SshAddress,
  { hasTimeout, hasCommand }: SshConfig,
  starts = true,
): string {
  const { ssh, remoteKemari, startRecv } = options;
  const flags = [
    "-T -a -x -o PermitLocalCommand=no -o ClearAllForwardings=yes -o ControlMaster=no",
    ...(hasTimeout ? [] : [`-o ConnectTimeout=${CONNECT_TIMEOUT_S}`]),
    ...(hasCommand ? ["-o RemoteCommand=none"] : []),
  ].join(" ");
  const start = startRecv === undefined || !starts ? "" : ` --start ${shellQuote(startRecv)}`;
  const remote = `${remoteKemari} attach${start} ${shellQuote(path)}`;
  return `exec ${ssh} ${flags} -- ${shellQuote(destination)} ${shellQuote(remote)}`;
}

/** Quotes a word for a shell, whatever characters it has. */
export function shellQuote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
