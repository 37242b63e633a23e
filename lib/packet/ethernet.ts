/** Ethernet: addresses and the header of a frame. */

/** The standard's numbers of payload types. */
export const ETHERTYPE = {
  IPV4: 0x0800,
  ARP: 0x0806,
  VLAN: 0x8100,
  RARP: 0x8035,
  QINQ: 0x88a8,
  IPV6: 0x86dd,
} as const;

/** Bytes of a hardware address. */
export const MAC_BYTES = 6;

/** The broadcast address. */
export const BROADCAST = new Uint8Array(MAC_BYTES).fill(0xff);

/** The header of a frame. Addresses are views of the frame. */
interface EthernetHeader {
  readonly destination: Uint8Array;
  readonly source: Uint8Array;
  /** The payload's type, behind any VLAN tags. */
  readonly etherType: number;
  /** The innermost VLAN's number. */
  readonly vlan?: number;
  /** Where the payload starts. */
  readonly payloadOffset: number;
}

/**
 * Decodes a frame's header.
 *
 * Wire shape, big-endian: 6 bytes destination, 6 bytes source, any number of VLAN tags (`u16`
 * 0x8100 or 0x88a8, `u16` priority | number), `u16` type of the payload.
 *
 * @returns `undefined` if the frame is too short for it.
 */
export function decodeEthernet(frame: Uint8Array): EthernetHeader | undefined {
  let at = 2 * MAC_BYTES;
  let vlan: number | undefined;
  while (at + 2 <= frame.length) {
    const etherType = u16(frame, at);
    if (etherType !== ETHERTYPE.VLAN && etherType !== ETHERTYPE.QINQ) {
      return {
        destination: frame.subarray(0, MAC_BYTES),
        source: frame.subarray(MAC_BYTES, 2 * MAC_BYTES),
        etherType,
        ...(vlan === undefined ? {} : { vlan }),
        payloadOffset: at + 2,
      };
    }
    if (at + 4 > frame.length) return undefined;
    vlan = u16(frame, at + 2) & 0xfff;
    at += 4;
  }
  return undefined;
}

/**
 * A hardware address in its usual spelling.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * assert.equal(macText(parseMac("52:54:00:AB:cd:01")!), "52:54:00:ab:cd:01");
 * ```
 */
export function macText(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Reads `52:54:00:12:34:56` (or with dashes); `undefined` if it is no such address. */
export function parseMac(text: string): Uint8Array<ArrayBuffer> | undefined {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return Uint8Array.from(text.split(/[:-]/), (part) => parseInt(part, 16));
}

/** Big-endian, from anywhere. */
export function u16(bytes: Uint8Array, at: number): number {
  return bytes[at] << 8 | bytes[at + 1];
}
