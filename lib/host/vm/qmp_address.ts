import { UsageError } from "../../errors.ts";
import type { Address } from "../system/address.ts";
import { parseAddress } from "../system/address.ts";

/** Where a QMP monitor listens. */
export type QmpAddress = Extract<Address, { kind: "unix" | "tcp" }>;

/**
 * Reads a monitor's address as QEMU's own `-qmp` writes it: a path, `unix:PATH`, `HOST:PORT` or
 * `tcp:HOST:PORT`; QEMU's options behind a comma (`,server=on,wait=off`) may stay.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.deepEqual(parseQmpAddress("unix:/run/vm.qmp,server=on"), {
 *   kind: "unix", path: "/run/vm.qmp", text: "/run/vm.qmp",
 * });
 * assert.equal(parseQmpAddress("localhost:4444").kind, "tcp");
 * ```
 *
 * @throws {UsageError}
 */
export function parseQmpAddress(text: string): QmpAddress {
  const plain = text.replace(/,(server|wait|nowait|ipv[46]|to|reconnect(-ms)?)\b.*$/, "");
  if (plain.startsWith("unix:")) return unixMonitor(plain.slice("unix:".length));
  const isPath = plain.includes("/");
  if (/^(exec|ssh|fd|stdio):/.test(plain) || plain === "stdio" || plain === "-") {
    return refuse(text, "a monitor cannot be reached at this kind of address");
  }
  if (!isPath && /^[0-9a-f:.]*:[0-9a-f:.]*:\d+$/i.test(plain)) {
    return refuse(text, "an IPv6 address stands in brackets: [::1]:4444");
  }
  if (!/^tcp:/.test(plain) && (isPath || !/^(\[[^\]]+\]|[^:]+):\d+$/.test(plain))) {
    return unixMonitor(plain);
  }
  let address: Address;
  try {
    address = parseAddress(plain);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return refuse(text, error.message);
  }
  return address.kind === "tcp" ? address : refuse(text, "this is not a monitor's address");
}

function unixMonitor(path: string): QmpAddress {
  // Also checks the path's length.
  parseAddress(`unix:${path}`);
  return { kind: "unix", path, text: path };
}

function refuse(text: string, what: string): never {
  throw new UsageError(`--qmp "${text}": ${what}`, {
    hint: "write what QEMU was given as -qmp: PATH, unix:PATH, HOST:PORT or tcp:HOST:PORT",
  });
}
