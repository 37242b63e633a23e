import { ETHERTYPE, MAC_BYTES } from "../ethernet.ts";
import { ARP_OPERATION, encodeArp } from "../arp.ts";

/**
 * The frame by which a machine announces to everyone that an IP address is at its hardware address.
 *
 * @param mac 6 bytes.
 * @param ip 4 bytes.
 */
export function encodeGratuitousArp(mac: Uint8Array, ip: Uint8Array): Uint8Array<ArrayBuffer> {
  return encodeArp(ETHERTYPE.ARP, ARP_OPERATION.REQUEST, mac, ip, new Uint8Array(MAC_BYTES), ip);
}
