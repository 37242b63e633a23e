/**
 * Where a sender connects to that has found its receiver by ssh.
 *
 * A receiver that listens at one address of a network says by that where it is to be reached: often a
 * network of its own, beside that of the logins. One that listens at all of its addresses is reached
 * where ssh has reached its host. One that listens for its own host only is not reached at all, unless
 * that host is ours.
 */
import { isLoopback } from "./link_security.ts";

/** @property answer What there is to do; `unreachable`: only ssh itself leads there. */
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
