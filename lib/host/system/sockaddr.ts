/** IP addresses as the system wants them: `struct sockaddr_in` and `struct sockaddr_in6`; ip(7), ipv6(7). */
import { AF_INET, AF_INET6 } from "./linux.ts";

/** Where a socket is bound. */
export interface BoundAddress {
  /** An IP address, without a zone. */
  readonly host: string;
  readonly port: number;
}

/** @param text As `inet_pton` takes it. */
export function ipv4Sockaddr(text: string, port: number): Uint8Array<ArrayBuffer> {
  const sockaddr = new Uint8Array(16);
  const view = new DataView(sockaddr.buffer);
  view.setUint16(0, AF_INET, true);
  view.setUint16(2, port);
  text.split(".").forEach((part, i) => sockaddr[4 + i] = Number(part));
  return sockaddr;
}

/** @param scope The interface's number for a link-local address, else 0. */
export function ipv6Sockaddr(
  bytes: Uint8Array,
  port: number,
  scope: number,
): Uint8Array<ArrayBuffer> {
  const sockaddr = new Uint8Array(28);
  const view = new DataView(sockaddr.buffer);
  view.setUint16(0, AF_INET6, true);
  view.setUint16(2, port);
  sockaddr.set(bytes, 8);
  view.setUint32(24, scope, true);
  return sockaddr;
}

/** @returns 16 bytes. @param text Without a zone. */
export function parseIpv6(text: string): Uint8Array {
  // The last 32 bits may be written as IPv4 addresses are.
  const plain = text.replace(
    /(\d+)\.(\d+)\.(\d+)\.(\d+)$/,
    (_, ...parts: string[]) => {
      const [a, b, c, d] = parts.map(Number);
      return `${(a << 8 | b).toString(16)}:${(c << 8 | d).toString(16)}`;
    },
  );
  const [head, tail] = plain.split("::");
  const groups = (part: string | undefined) => part ? part.split(":") : [];
  const left = groups(head);
  const right = groups(tail);
  const bytes = new Uint8Array(16);
  const put = (group: string, index: number) => {
    const value = parseInt(group, 16);
    bytes[2 * index] = value >> 8;
    bytes[2 * index + 1] = value & 0xff;
  };
  left.forEach(put);
  right.forEach((group, i) => put(group, 8 - right.length + i));
  return bytes;
}

/**
 * Reads where a socket is bound.
 *
 * @returns `undefined` for another family than IPv4 and IPv6.
 */
export function readSockaddr(sockaddr: Uint8Array<ArrayBuffer>): BoundAddress | undefined {
  const view = new DataView(sockaddr.buffer, sockaddr.byteOffset);
  const port = view.getUint16(2);
  switch (view.getUint16(0, true)) {
    case AF_INET:
      return { host: sockaddr.subarray(4, 8).join("."), port };
    case AF_INET6: {
      const groups = [0, 2, 4, 6, 8, 10, 12, 14].map((at) => view.getUint16(8 + at).toString(16));
      return { host: groups.join(":"), port };
    }
  }
  return undefined;
}
