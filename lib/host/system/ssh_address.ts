/** Targets that are reached by the user's own ssh. */
import { UsageError } from "../../errors.ts";

/** How a host is reached by ssh, and what is run there. */
export interface SshOptions {
  /** The local program with its arguments, as a shell takes them. */
  readonly ssh: string;
  /** What starts kemari there, as the login shell there takes it. */
  readonly remoteKemari: string;
  /** Whether the session stays on ssh's own connection. */
  readonly overSsh: boolean;
  /** Arguments for a `kemari recv` that is started there if none is found. */
  readonly startRecv?: string;
}

export const DEFAULT_SSH: SshOptions = { ssh: "ssh", remoteKemari: "kemari", overSsh: false };

/** Where a `kemari recv` has its control socket, unless something else is said. */
export const DEFAULT_CONTROL_PATH = "/run/kemari.ctl";

/** A `kemari recv` on another host, by its control socket there. */
export interface SshAddress {
  readonly kind: "ssh";
  /** `HOST` or `USER@HOST`, as ssh takes it: a name of `~/.ssh/config` too. */
  readonly destination: string;
  readonly path: string;
  readonly options: SshOptions;
  readonly text: string;
}

/** sun_path holds 108 bytes with its terminator. */
const MAX_PATH_BYTES = 107;

const HINT = "write ssh:[USER@]HOST[:PATH], PATH being that of the recv's control socket there";

/**
 * Reads `ssh:[USER@]HOST[:PATH]`.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * const { destination, path } = parseSshAddress("ssh:root@far:/run/vm1.ctl");
 * assert.deepEqual([destination, path], ["root@far", "/run/vm1.ctl"]);
 * ```
 *
 * @throws {UsageError}
 */
export function parseSshAddress(text: string, options: SshOptions = DEFAULT_SSH): SshAddress {
  const fail = (what: string, hint = HINT): never => {
    throw new UsageError(`"${text}": ${what}`, { hint });
  };
  const parts =
    /^ssh:(?:([^\s:\p{C}]+)@)?(?:\[([\w:.%-]+)\]|([^\s:@[\]/\p{C}]+))(?::([^\p{C}]*))?$/u
      .exec(text);
  if (parts === null) return fail("this is no host to log in at");
  const [, user, bracketed, plain, path = DEFAULT_CONTROL_PATH] = parts;
  const host = bracketed ?? plain;
  // What begins with a dash, ssh takes for an option.
  if (host.startsWith("-") || user?.startsWith("-")) fail("no user and no host begins with a dash");
  if (/^\d+$/.test(path)) {
    fail(
      "what stands behind the host is the path of a control socket",
      'another port of ssh\'s is told by ~/.ssh/config, or by --ssh "ssh -p PORT"',
    );
  }
  if (!path.startsWith("/")) fail("the path behind the host begins with a slash");
  if (new TextEncoder().encode(path).length > MAX_PATH_BYTES) {
    fail(`a socket's path has ${MAX_PATH_BYTES} bytes at the most`);
  }
  const destination = user === undefined ? host : `${user}@${host}`;
  return { kind: "ssh", destination, path, options, text };
}
