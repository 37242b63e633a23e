import assert from "node:assert/strict";
import fc from "fast-check";
import { ARP_OPERATION, decodeArp, encodeRarpAnnouncement, isAnnouncement } from "./arp.ts";
import { encodeGratuitousArp } from "./testing/gratuitous_arp.ts";
import { describeFrame } from "./testing/describe_frame.ts";
import { decodeEthernet, ETHERTYPE, macText, parseMac } from "./ethernet.ts";
import { decodeIpv4, decodeTcp, decodeUdp, ipv4Text } from "./ipv4.ts";

const MAC = parseMac("52:54:00:12:34:56")!;
const IP = Uint8Array.of(10, 77, 0, 2);

function hex(text: string): Uint8Array {
  return Uint8Array.from(text.replaceAll(/\s/g, "").match(/../g)!, (byte) => parseInt(byte, 16));
}

const TO_FROM = "525400000001 525400123456";
/** 10.77.0.2:7 > 10.77.0.1:4660, ack+psh, "hi", then four bytes of padding. */
const TCP_FRAME = hex(
  `${TO_FROM} 0800 4500002a 00014000 40060000 0a4d0002 0a4d0001
   0007 1234 01020304 a0b0c0d0 5018 ffff 0000 0000 6869 00000000`,
);
const UDP_FRAME = hex(
  `${TO_FROM} 0800 4500001d 00014000 40110000 0a4d0002 0a4d0001 0035 1234 0009 0000 21`,
);
/** The same in two VLANs. */
const TAGGED_FRAME = hex(
  `${TO_FROM} 88a8 0064 8100 2007 0800 4500001d 00014000 40110000
   0a4d0002 0a4d0001 0035 1234 0009 0000 21`,
);

Deno.test("decodeTcp gives ports, numbers, flags and the payload without padding", () => {
  const tcp = decodeTcp(TCP_FRAME)!;
  assert.deepEqual(
    { ...tcp, payload: new TextDecoder().decode(tcp.payload) },
    {
      sourcePort: 7,
      destinationPort: 4660,
      sequence: 0x01020304,
      acknowledgment: 0xa0b0c0d0,
      fin: false,
      syn: false,
      rst: false,
      ack: true,
      payload: "hi",
    },
  );
});

Deno.test("decodeEthernet skips VLAN tags and gives the inner number", () => {
  const header = decodeEthernet(TAGGED_FRAME)!;
  assert.equal(header.vlan, 7);
  assert.equal(header.etherType, ETHERTYPE.IPV4);
  assert.equal(macText(header.source), "52:54:00:12:34:56");
  assert.deepEqual(decodeUdp(TAGGED_FRAME)!.payload, decodeUdp(UDP_FRAME)!.payload);
  assert.equal(decodeEthernet(UDP_FRAME)!.vlan, undefined);
});

Deno.test("decodeIpv4 refuses what is not whole, or lies about its length", () => {
  assert.equal(ipv4Text(decodeIpv4(UDP_FRAME)!.source), "10.77.0.2");
  const change = (at: number, value: number) => {
    const frame = UDP_FRAME.slice();
    frame[at] = value;
    return decodeIpv4(frame);
  };
  assert.equal(change(14, 0x65), undefined, "version 6");
  assert.equal(change(14, 0x44), undefined, "a header of 16 bytes");
  assert.equal(change(17, 0x1e), undefined, "one byte more than the frame has");
  assert.equal(change(17, 0x13), undefined, "shorter than its header");
  const fragment = TCP_FRAME.slice();
  fragment[21] = 1;
  assert.equal(decodeIpv4(fragment)!.fragmentOffset, 1);
  assert.equal(decodeTcp(fragment), undefined);
});

Deno.test("announcements are what switches and neighbours learn from", () => {
  const rarp = decodeArp(encodeRarpAnnouncement(MAC))!;
  assert.equal(rarp.isReverse, true);
  assert.equal(rarp.operation, ARP_OPERATION.RARP_REQUEST);
  assert.deepEqual(rarp.senderMac, MAC);
  assert.deepEqual(rarp.targetMac, MAC);
  const arp = decodeArp(encodeGratuitousArp(MAC, IP))!;
  assert.equal(arp.isReverse, false);
  assert.deepEqual([...arp.senderIp], [...IP]);
  assert.deepEqual([...arp.targetIp], [...IP]);
  for (const frame of [encodeRarpAnnouncement(MAC), encodeGratuitousArp(MAC, IP)]) {
    assert.equal(frame.length, 60);
    assert.equal(macText(decodeEthernet(frame)!.destination), "ff:ff:ff:ff:ff:ff");
    assert.equal(isAnnouncement(frame), true);
  }
  const question = encodeGratuitousArp(MAC, IP);
  question[41] = 1;
  assert.equal(isAnnouncement(question), false);
  assert.equal(isAnnouncement(TCP_FRAME), false);
});

Deno.test("describeFrame names what is inside", () => {
  const ends = "52:54:00:12:34:56 > 52:54:00:00:00:01";
  const question = encodeGratuitousArp(MAC, IP);
  question[41] = 1;
  const answer = encodeGratuitousArp(MAC, IP);
  answer[21] = ARP_OPERATION.REPLY;
  const icmp = UDP_FRAME.slice();
  icmp[23] = 1;
  const ipv6 = UDP_FRAME.slice();
  ipv6.set([0x86, 0xdd], 12);
  const cases: [Uint8Array, string][] = [
    [
      TCP_FRAME,
      `${ends}, 60 bytes, TCP 10.77.0.2:7 > 10.77.0.1:4660 ack seq 16909060 ack 2695938256 len 2`,
    ],
    [UDP_FRAME, `${ends}, 43 bytes, UDP 10.77.0.2:53 > 10.77.0.1:4660 len 1`],
    [TAGGED_FRAME, `${ends}, 51 bytes, VLAN 7, UDP 10.77.0.2:53 > 10.77.0.1:4660 len 1`],
    [icmp, `${ends}, 43 bytes, ICMP 10.77.0.2 > 10.77.0.1`],
    [ipv6, `${ends}, 43 bytes, IPv6`],
    [
      question,
      "52:54:00:12:34:56 > ff:ff:ff:ff:ff:ff, 60 bytes, ARP who has 10.77.0.1, asks 10.77.0.2",
    ],
    [
      answer,
      "52:54:00:12:34:56 > ff:ff:ff:ff:ff:ff, 60 bytes, ARP 10.77.0.2 is at 52:54:00:12:34:56",
    ],
    [new Uint8Array(13), "13 bytes, too short for Ethernet"],
  ];
  for (const [frame, text] of cases) assert.equal(describeFrame(frame), text);
});

Deno.test("every decoder takes every prefix and any bytes", () => {
  const all = (frame: Uint8Array) => {
    decodeEthernet(frame);
    decodeArp(frame);
    decodeIpv4(frame);
    decodeTcp(frame);
    decodeUdp(frame);
    isAnnouncement(frame);
    describeFrame(frame);
  };
  for (const frame of [TCP_FRAME, UDP_FRAME, TAGGED_FRAME, encodeRarpAnnouncement(MAC)]) {
    for (let end = 0; end <= frame.length; end++) all(frame.subarray(0, end));
  }
  assert.equal(decodeTcp(TCP_FRAME.subarray(0, 55)), undefined);
  fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), all), { numRuns: 300 });
  fc.assert(
    fc.property(fc.nat(TCP_FRAME.length - 1), fc.nat(255), (at, value) => {
      const frame = TCP_FRAME.slice();
      frame[at] = value;
      all(frame);
    }),
    { numRuns: 300 },
  );
});

Deno.test("parseMac takes the usual spellings only", () => {
  assert.deepEqual([...parseMac("0a-00-27-00-00-fF")!], [10, 0, 39, 0, 0, 255]);
  for (const text of ["", "52:54:00:12:34", "52:54:00:12:34:5g", "525400123456", "1:2:3:4:5:6"]) {
    assert.equal(parseMac(text), undefined);
  }
});
