import { UsageError } from "../../errors.ts";
import { DEFAULT_SSH, parseSshAddress, type SshAddress } from "./ssh_address.ts";

/** Where the other end is, or is awaited. */
export type Address =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly text: string }
  | { readonly kind: "unix"; readonly path: string; readonly text: string }
  | SshAddress
  /** A shell command whose stdin and stdout are the connection. */
  | { readonly kind: "exec"; readonly command: string; readonly text: string }
  /** Our own stdin and stdout. */
  | { readonly kind: "stdio"; readonly text: string };

/** Where a receiver can listen. */
export type ListenAddress = Exclude<Address, { kind: "ssh" }>;

const HINT = "write HOST:PORT, tcp:HOST:PORT, unix:PATH, ssh:HOST, exec:COMMAND or stdio:";

/**
 * Reads an address as the command line writes it.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseAddress("[::1]:4000"), {
 *   kind: "tcp", host: "::1", port: 4000, text: "[::1]:4000",
 * });
 * ```
 *
 * @param ssh What is asked for beside an address of the kind `ssh`.
 * @throws {UsageError}
 */
export function parseAddress(text: string, ssh = DEFAULT_SSH): Address {
  if (text === "stdio:" || text === "stdio" || text === "-") return { kind: "stdio", text };
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    // sun_path holds 108 bytes with its terminator.
    if (path === "" || new TextEncoder().encode(path).length > 107) {
      throw new UsageError(`"${text}": a socket path has 1 to 107 bytes`, { hint: HINT });
    }
    return { kind: "unix", path, text };
  }
  if (text.startsWith("ssh:")) return parseSshAddress(text, ssh);
  if (text.startsWith("exec:")) {
    const command = text.slice("exec:".length);
    if (command.trim() === "") throw new UsageError(`"${text}" names no command`, { hint: HINT });
    return { kind: "exec", command, text };
  }
  const parts = /^(?:tcp:)?(?:\[([^\]]+)\]|([^:]*)):(\d+)$/.exec(text);
  if (parts === null) throw new UsageError(`"${text}" is not an address`, { hint: HINT });
  const port = Number(parts[3]);
  if (port > 65535) throw new UsageError(`"${text}": no port is above 65535`, { hint: HINT });
  const host = parts[1] ?? parts[2];
  if (/%$|%.*%/.test(host)) {
    throw new UsageError(`"${text}": behind % stands one network interface`, {
      hint: "write [fe80::1%eth0]:PORT where HOST:PORT is asked for",
    });
  }
  return { kind: "tcp", host: host === "" ? "0.0.0.0" : host, port, text };
}
