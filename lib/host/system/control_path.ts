import { UsageError } from "../../errors.ts";
import { parseAddress } from "./address.ts";

/**
 * Parses the address of a control socket, as given to `--control`, `--via`, `status` and
 * `failover`: a path, or `unix:PATH` as everywhere else.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(parseControlPath("unix:/run/kemari.ctl"), "/run/kemari.ctl");
 * assert.equal(parseControlPath("/run/kemari.ctl"), "/run/kemari.ctl");
 * ```
 *
 * @throws {UsageError} Another kind of address, or a path that no socket can have.
 */
export function parseControlPath(text: string): string {
  const hint =
    "a control socket is a Unix socket: write its PATH or unix:PATH; over the network, " +
    "ssh to that host and ask there";
  const isPath = text.includes("/") && !/^(tcp|exec|ssh|stdio):/.test(text);
  if (!isPath && !text.startsWith("unix:") && /^(tcp|exec|ssh):|^stdio:?$|^-$|:\d+$/.test(text)) {
    throw new UsageError(`"${text}" is no control socket`, { hint });
  }
  const address = parseAddress(text.startsWith("unix:") ? text : `unix:${text}`);
  if (address.kind === "unix") return address.path;
  throw new UsageError(`"${text}" is no control socket`, { hint });
}
