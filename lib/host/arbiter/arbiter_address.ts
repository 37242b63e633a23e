/** The arbiter's address, from the command line. */
import { UsageError } from "../../errors.ts";

export type ArbiterAddress =
  /** Members of an etcd cluster, asked in this order; and the prefix of its keys. */
  | {
    readonly kind: "etcd";
    readonly urls: readonly string[];
    readonly prefix: string;
    readonly text: string;
  }
  /** A shell command. */
  | { readonly kind: "exec"; readonly command: string; readonly text: string };

const HINT = "write etcd:http://HOST:2379[,http://HOST:2379…][/PREFIX], or exec:COMMAND";
const DEFAULT_PREFIX = "kemari";

/**
 * Parses the value of `--arbiter`.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseArbiterAddress("etcd:http://a:2379,http://b:2379/ha"), {
 *   kind: "etcd", urls: ["http://a:2379", "http://b:2379"], prefix: "ha",
 *   text: "etcd:http://a:2379,http://b:2379/ha",
 * });
 * ```
 *
 * @throws {UsageError}
 */
export function parseArbiterAddress(text: string): ArbiterAddress {
  if (text.startsWith("exec:")) {
    const command = text.slice("exec:".length);
    if (command.trim() === "") throw new UsageError(`"${text}" names no command`, { hint: HINT });
    return { kind: "exec", command, text };
  }
  if (!text.startsWith("etcd:")) throw new UsageError(`"${text}" is no arbiter`, { hint: HINT });
  let prefix: string | undefined;
  const urls = text.slice("etcd:".length).split(",").map((part, i, parts) => {
    const url = URL.canParse(part) ? new URL(part) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol) || url.search + url.hash !== "") {
      throw new UsageError(`"${text}": "${part}" is no etcd's URL`, { hint: HINT });
    }
    if (url.username + url.password !== "") {
      throw new UsageError(`${text.slice(0, 5)}…: a password in a URL is seen by everybody`, {
        hint: "put NAME:PASSWORD into a file of mode 0600 and name it with --arbiter-user",
      });
    }
    const path = url.pathname.replace(/^\/+|\/+$/g, "");
    if (path !== "") {
      if (i < parts.length - 1) {
        throw new UsageError(`"${text}": the prefix stands behind the last URL`, { hint: HINT });
      }
      prefix = path;
    }
    return url.origin;
  });
  return { kind: "etcd", urls, prefix: prefix ?? DEFAULT_PREFIX, text };
}
