/** IPv4, and the ports and numbers of TCP and UDP in it. */
import { decodeEthernet, ETHERTYPE, u16 } from "./ethernet.ts";

/** Payloads of IPv4 that have a name in logs. */
export const IP_PROTOCOL = { ICMP: 1, TCP: 6, UDP: 17 } as const;

const IPV4_MIN_BYTES = 20;
const TCP_MIN_BYTES = 20;

/** An IPv4 packet's header. Addresses are views of the frame. */
interface Ipv4Packet {
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  /** In units of 8 bytes; above 0, the payload is not the start of the datagram's. */
  readonly fragmentOffset: number;
  /** The payload's place in the frame, padding not included. */
  readonly payloadStart: number;
  readonly payloadEnd: number;
}

/**
 * Decodes the IPv4 header in a frame.
 *
 * Wire shape, big-endian: `u8` version 4 | words of header, `u8` service, `u16` whole length,
 * `u16` id, `u16` flags | fragment, `u8` hops, `u8` protocol, `u16` checksum, source, destination.
 *
 * @returns `undefined` if the frame holds none, or a cut one.
 */
export function decodeIpv4(frame: Uint8Array): Ipv4Packet | undefined {
  const header = decodeEthernet(frame);
  if (header?.etherType !== ETHERTYPE.IPV4) return undefined;
  const at = header.payloadOffset;
  if (frame.length < at + IPV4_MIN_BYTES || frame[at] >> 4 !== 4) return undefined;
  const headerBytes = 4 * (frame[at] & 0xf);
  const totalBytes = u16(frame, at + 2);
  if (headerBytes < IPV4_MIN_BYTES || totalBytes < headerBytes) return undefined;
  if (at + totalBytes > frame.length) return undefined;
  return {
    source: frame.subarray(at + 12, at + 16),
    destination: frame.subarray(at + 16, at + 20),
    protocol: frame[at + 9],
    fragmentOffset: u16(frame, at + 6) & 0x1fff,
    payloadStart: at + headerBytes,
    payloadEnd: at + totalBytes,
  };
}

/** A TCP segment's header. */
interface TcpSegment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly acknowledgment: number;
  readonly syn: boolean;
  readonly ack: boolean;
  readonly fin: boolean;
  readonly rst: boolean;
  /** The segment's data: a view of the frame. */
  readonly payload: Uint8Array;
}

/**
 * Decodes the TCP header in a frame.
 *
 * Wire shape, big-endian: `u16` source port, `u16` destination port, `u32` sequence, `u32`
 * acknowledgment, `u8` words of header << 4, `u8` flags, `u16` window, `u16` checksum, `u16`
 * urgent.
 *
 * @returns `undefined` if the frame holds none, a later fragment, or a cut one.
 */
export function decodeTcp(frame: Uint8Array): TcpSegment | undefined {
  const ip = decodeIpv4(frame);
  if (ip?.protocol !== IP_PROTOCOL.TCP || ip.fragmentOffset !== 0) return undefined;
  const at = ip.payloadStart;
  if (ip.payloadEnd - at < TCP_MIN_BYTES) return undefined;
  const headerBytes = 4 * (frame[at + 12] >> 4);
  if (headerBytes < TCP_MIN_BYTES || at + headerBytes > ip.payloadEnd) return undefined;
  const flags = frame[at + 13];
  return {
    sourcePort: u16(frame, at),
    destinationPort: u16(frame, at + 2),
    sequence: u32(frame, at + 4),
    acknowledgment: u32(frame, at + 8),
    fin: (flags & 1) !== 0,
    syn: (flags & 2) !== 0,
    rst: (flags & 4) !== 0,
    ack: (flags & 16) !== 0,
    payload: frame.subarray(at + headerBytes, ip.payloadEnd),
  };
}

/** The ports of a UDP datagram; `undefined` as for {@link decodeTcp}. */
export function decodeUdp(
  frame: Uint8Array,
): { sourcePort: number; destinationPort: number; payload: Uint8Array } | undefined {
  const ip = decodeIpv4(frame);
  if (ip?.protocol !== IP_PROTOCOL.UDP || ip.fragmentOffset !== 0) return undefined;
  const at = ip.payloadStart;
  if (ip.payloadEnd - at < 8) return undefined;
  return {
    sourcePort: u16(frame, at),
    destinationPort: u16(frame, at + 2),
    payload: frame.subarray(at + 8, ip.payloadEnd),
  };
}

/** An IPv4 address in its usual spelling. */
export function ipv4Text(ip: Uint8Array): string {
  return ip.join(".");
}

function u32(bytes: Uint8Array, at: number): number {
  return (u16(bytes, at) << 16 | u16(bytes, at + 2)) >>> 0;
}
