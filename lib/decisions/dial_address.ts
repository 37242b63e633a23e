/**
 * The address to which a sender connects that has found its receiver by ssh.
 *
 * A receiver that listens on a certain address is reached at that address, often in a network of
 * its own beside that for logins. A receiver that listens on all its addresses is reached at the
 * address at which ssh has reached its host. A receiver that listens for its own host only cannot
 * be reached from another host.
 */
import { isLoopback } from "./link_security.ts";

/** @property answer What to do; `unreachable`: only ssh itself leads there. */
export type DialAddress =
  | { readonly answer: "dial"; readonly host: string }
  | { readonly answer: "unreachable" };

/**
 * @param bound The IP address at which the receiver listens.
 * @param sshHost The name or address that ssh has for its host.
 */
export function dialAddress(bound: string, sshHost: string): DialAddress {
  if (isWildcard(bound)) return { answer: "dial", host: sshHost };
  if (!isLoopbackText(bound) || isLoopbackText(sshHost)) return { answer: "dial", host: bound };
  return { answer: "unreachable" };
}

function isWildcard(address: string): boolean {
  return address === "0.0.0.0" || /^[0:]+$/.test(address) || address === "::ffff:0.0.0.0";
}

function isLoopbackText(host: string): boolean {
  if (host === "localhost" || host === "::1") return true;
  const [, ipv4] = /^(?:::ffff:)?(\d+\.\d+\.\d+\.\d+)$/.exec(host) ?? [];
  return ipv4 !== undefined && isLoopback(Uint8Array.from(ipv4.split("."), Number));
}
