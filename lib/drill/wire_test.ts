import assert from "node:assert/strict";
import type { PortFrame } from "../lab/network/port_sniffer.ts";
import { GUEST_MAC } from "./plan.ts";
import { DrillWire, type FrameSource } from "./wire.ts";

const ARP = 0x0806;
const IPV4 = 0x0800;
const TCP = 6;

/** A frame by the guest, unless `from` says otherwise. */
function frame(host: string, atMs: number, type = ARP, protocol = 0, from = GUEST_MAC): PortFrame {
  const bytes = new Uint8Array(60);
  bytes.set(from, 6);
  new DataView(bytes.buffer).setUint16(12, type);
  bytes[23] = protocol;
  return { port: `${host}-port`, atMs, frame: bytes };
}

const segment = (host: string, atMs: number) => frame(host, atMs, IPV4, TCP);

/** A wire on which these frames pass, and some more that nobody saw. */
function wireOf(frames: PortFrame[], missed = 0): DrillWire {
  const source: FrameSource = {
    take: () => frames.splice(0),
    missed,
    [Symbol.dispose]: () => {},
  };
  return new DrillWire(source);
}

Deno.test("a packet of the first host behind one of the second is told", () => {
  const cases: [string[], boolean][] = [
    [["primary", "primary"], true],
    [["primary", "primary", "secondary"], true],
    [["primary", "secondary", "primary"], false],
    [["secondary", "primary"], false],
    [[], false],
  ];
  for (const [hosts, held] of cases) {
    using wire = wireOf(hosts.map((host, i) => frame(host, i)));
    assert.equal(wire.check().held, held, hosts.join());
  }
  using back = wireOf(["secondary", "primary"].map((host, i) => frame(host, i)));
  assert.equal(back.check("secondary").held, true);
});

Deno.test("what was not seen, or is not the guest's, proves nothing", () => {
  using missed = wireOf([frame("primary", 1)], 3);
  const { held, detail } = missed.check();
  assert.equal(held, false);
  assert.match(detail, /1 from the primary; 3 passed unseen/);
  const stranger = Uint8Array.of(2, 0, 0, 0, 0, 1);
  using strangers = wireOf([frame("primary", 1), frame("secondary", 2, ARP, 0, stranger)]);
  assert.equal(strangers.framesFrom("secondary"), 0);
});

Deno.test("silence lasts from the last segment at one host to the first at the other", () => {
  using wire = wireOf([
    segment("primary", 100),
    segment("primary", 150),
    frame("primary", 170),
    frame("secondary", 200),
    segment("secondary", 230),
    segment("secondary", 900),
  ]);
  assert.equal(wire.silenceMs, 80);
  wire.restart();
  assert.equal(wire.silenceMs, undefined);
});
