/** The command lines of ssh, and what it tells of its configuration. */
import type { SshAddress } from "../system/ssh_address.ts";

/** How long ssh may take to connect where the user's configuration says nothing of it, in seconds. */
const CONNECT_TIMEOUT_S = 10;

/** What the user's configuration says of a host. */
export interface SshConfig {
  /** The host's name or address, behind the name that the user has for it. */
  readonly hostname: string;
  /** Whether a time is set in which a connection has to come about. */
  readonly hasTimeout: boolean;
  /** Whether a command is set that ssh would run there instead of ours. */
  readonly hasCommand: boolean;
}

/**
 * Has ssh tell its configuration for a host, as lines `keyword value`; nothing is connected.
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
 * @param destination Its host stands for itself where nothing is said of it.
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
 * Runs `kemari attach` there. Whatever the user's configuration says of terminals, forwardings and
 * commands is for people who log in, and left out; so do scp and sftp. A connection that somebody
 * shares is used, but ours is nobody else's: it ends with us.
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

/** A word as a shell takes it, whatever is in it. */
export function shellQuote(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
