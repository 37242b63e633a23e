import { ARP_OPERATION, decodeArp } from "../arp.ts";
import { decodeEthernet, ETHERTYPE, macText } from "../ethernet.ts";
import { decodeIpv4, decodeTcp, decodeUdp, IP_PROTOCOL, ipv4Text } from "../ipv4.ts";

/**
 * Describes a frame in a line, for logs and failed tests. Takes any bytes.
 *
 * ```ts
 * import assert from "node:assert/strict";
 * import { encodeRarpAnnouncement } from "../arp.ts";
 * import { parseMac } from "../ethernet.ts";
 * assert.equal(
 *   describeFrame(encodeRarpAnnouncement(parseMac("52:54:00:12:34:56")!)),
 *   "52:54:00:12:34:56 > ff:ff:ff:ff:ff:ff, 60 bytes, RARP announcement",
 * );
 * ```
 */
export function describeFrame(frame: Uint8Array): string {
  const header = decodeEthernet(frame);
  if (header === undefined) return `${frame.length} bytes, too short for Ethernet`;
  const vlan = header.vlan === undefined ? "" : `, VLAN ${header.vlan}`;
  return `${macText(header.source)} > ${macText(header.destination)}, ${frame.length} bytes` +
    `${vlan}, ${describePayload(frame, header.etherType)}`;
}

function describePayload(frame: Uint8Array, etherType: number): string {
  const arp = decodeArp(frame);
  if (arp !== undefined) {
    if (arp.isReverse) return "RARP announcement";
    const target = ipv4Text(arp.targetIp);
    const sender = ipv4Text(arp.senderIp);
    return arp.operation === ARP_OPERATION.REQUEST
      ? `ARP who has ${target}, asks ${sender}`
      : `ARP ${sender} is at ${macText(arp.senderMac)}`;
  }
  const ip = decodeIpv4(frame);
  if (ip === undefined) {
    return etherType === ETHERTYPE.IPV6 ? "IPv6" : `type 0x${etherType.toString(16)}`;
  }
  const from = ipv4Text(ip.source);
  const to = ipv4Text(ip.destination);
  const tcp = decodeTcp(frame);
  if (tcp !== undefined) {
    const flags = (["syn", "ack", "fin", "rst"] as const).filter((name) => tcp[name]).join("+");
    return `TCP ${from}:${tcp.sourcePort} > ${to}:${tcp.destinationPort} ${flags || "-"} ` +
      `seq ${tcp.sequence} ack ${tcp.acknowledgment} len ${tcp.payload.length}`;
  }
  const udp = decodeUdp(frame);
  if (udp !== undefined) {
    return `UDP ${from}:${udp.sourcePort} > ${to}:${udp.destinationPort} len ${udp.payload.length}`;
  }
  const name = ip.protocol === IP_PROTOCOL.ICMP ? "ICMP" : `IP protocol ${ip.protocol}`;
  return `${name} ${from} > ${to}`;
}
