import type { Address } from "./address.ts";
import { parseAddress } from "./address.ts";

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
  const isTcp = /^tcp:/.test(plain) || !/[/]/.test(plain) && /^(\[[^\]]+\]|[^:]+):\d+$/.test(plain);
  const path = plain.replace(/^unix:/, "");
  const address = parseAddress(isTcp && !plain.startsWith("unix:") ? plain : `unix:${path}`);
  if (address.kind === "tcp") return address;
  return { kind: "unix", path, text: path };
}
