/** ARP and RARP: who has an address, and where a machine has moved to. */
import { BROADCAST, decodeEthernet, ETHERTYPE, MAC_BYTES, u16 } from "./ethernet.ts";

/** The operations of ARP and RARP. */
export const ARP_OPERATION = { REQUEST: 1, REPLY: 2, RARP_REQUEST: 3, RARP_REPLY: 4 } as const;

const HARDWARE_ETHERNET = 1;
const ARP_BYTES = 28;
const IPV4_BYTES = 4;
/** Ethernet's shortest frame without its checksum; switches may drop shorter ones. */
const PADDED_FRAME_BYTES = 60;

/** An ARP or RARP packet for IPv4 over Ethernet. Addresses are views of the frame. */
interface ArpPacket {
  readonly isReverse: boolean;
  readonly operation: number;
  readonly senderMac: Uint8Array;
  readonly senderIp: Uint8Array;
  readonly targetMac: Uint8Array;
  readonly targetIp: Uint8Array;
}

/**
 * Decodes the ARP or RARP packet in a frame.
 *
 * Wire shape, big-endian: `u16` hardware 1, `u16` protocol 0x0800, `u8` 6, `u8` 4, `u16`
 * operation, sender's hardware and IP address, target's hardware and IP address.
 *
 * @returns `undefined` if the frame has no such packet, or a cut one.
 */
export function decodeArp(frame: Uint8Array): ArpPacket | undefined {
  const header = decodeEthernet(frame);
  if (header === undefined) return undefined;
  const { etherType, payloadOffset: at } = header;
  if (etherType !== ETHERTYPE.ARP && etherType !== ETHERTYPE.RARP) return undefined;
  if (frame.length < at + ARP_BYTES) return undefined;
  if (u16(frame, at) !== HARDWARE_ETHERNET || u16(frame, at + 2) !== ETHERTYPE.IPV4) {
    return undefined;
  }
  if (frame[at + 4] !== MAC_BYTES || frame[at + 5] !== IPV4_BYTES) return undefined;
  return {
    isReverse: etherType === ETHERTYPE.RARP,
    operation: u16(frame, at + 6),
    senderMac: frame.subarray(at + 8, at + 14),
    senderIp: frame.subarray(at + 14, at + 18),
    targetMac: frame.subarray(at + 18, at + 24),
    targetIp: frame.subarray(at + 24, at + 28),
  };
}

/**
 * Whether a frame tells switches and neighbours where its sender is now: QEMU's RARP after an
 * incoming migration, or a gratuitous ARP (sender and target are the same IP address).
 */
export function isAnnouncement(frame: Uint8Array): boolean {
  const arp = decodeArp(frame);
  if (arp === undefined) return false;
  return arp.isReverse || arp.senderIp.every((byte, i) => byte === arp.targetIp[i]);
}

/**
 * The frame by which a machine announces itself when its IP address is not known: a RARP request
 * for its own hardware address, to everyone, as QEMU itself sends it.
 *
 * @param mac Of the guest's network card; 6 bytes.
 */
export function encodeRarpAnnouncement(mac: Uint8Array): Uint8Array<ArrayBuffer> {
  const none = new Uint8Array(IPV4_BYTES);
  return encodeArp(ETHERTYPE.RARP, ARP_OPERATION.RARP_REQUEST, mac, none, mac, none);
}

/** An ARP or RARP packet to everyone, in a frame of the shortest length that Ethernet has. */
export function encodeArp(
  etherType: number,
  operation: number,
  senderMac: Uint8Array,
  senderIp: Uint8Array,
  targetMac: Uint8Array,
  targetIp: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(PADDED_FRAME_BYTES);
  const view = new DataView(frame.buffer);
  frame.set(BROADCAST, 0);
  frame.set(senderMac, 6);
  view.setUint16(12, etherType);
  view.setUint16(14, HARDWARE_ETHERNET);
  view.setUint16(16, ETHERTYPE.IPV4);
  frame[18] = MAC_BYTES;
  frame[19] = IPV4_BYTES;
  view.setUint16(20, operation);
  frame.set(senderMac, 22);
  frame.set(senderIp, 28);
  frame.set(targetMac, 32);
  frame.set(targetIp, 38);
  return frame;
}
