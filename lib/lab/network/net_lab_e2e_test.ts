/** The network lab on real namespaces. */

import assert from "node:assert/strict";
import { TransportError } from "../../errors.ts";
import { interfaceExists, TapDevice } from "../../host/net/tap_device.ts";
import { decodeArp } from "../../packet/arp.ts";
import { encodeGratuitousArp } from "../../packet/testing/gratuitous_arp.ts";
import { ipv4Text } from "../../packet/ipv4.ts";
import { parseMac } from "../../packet/ethernet.ts";
import { CABLE_IP, CLIENT_IP, NetLab, netLabMissing } from "./net_lab.ts";
import { insideNamespace, NetSniffer } from "./net_sniffer.ts";
import { PortSniffer } from "./port_sniffer.ts";
import { until } from "../program/until.ts";

const missing = await netLabMissing();
if (missing) console.error(`SKIP network tests: ${missing}`);
const MAC = parseMac("52:54:00:12:34:56")!;
/** Asks the client who it is, as 10.77.0.2. */
const QUESTION = encodeGratuitousArp(MAC, Uint8Array.of(10, 77, 0, 2));
QUESTION.set([10, 77, 0, 1], 38);

function test(name: string, body: (lab: NetLab) => Promise<void>) {
  Deno.test({
    name: `e2e: ${name}`,
    ignore: missing !== undefined,
    fn: async () => {
      await using lab = await NetLab.make({ rate: "500mbit" });
      await body(lab);
    },
  });
}

test("a TAP at the lab's bridge talks to the client", async (lab) => {
  assert.equal(insideNamespace(lab.wire, () => interfaceExists("kemA")), true);
  assert.equal(interfaceExists("kemA"), false, "nothing of it is on the host");
  const tap = insideNamespace(lab.wire, () => TapDevice.open("kemA", { create: false }));
  try {
    using sniffer = NetSniffer.open(lab.client, "client0");
    await until(() => tap.send(QUESTION), "the TAP to take a frame");
    const answers: string[] = [];
    await until(() => {
      // The bridge port may need its moment before it forwards.
      tap.send(QUESTION);
      tap.receive(65536, (frame) => {
        const arp = decodeArp(frame);
        if (arp) answers.push(ipv4Text(arp.senderIp));
      });
      return answers.includes(CLIENT_IP);
    }, "the answer");
    const seen = sniffer.take().map((frame) => decodeArp(frame)?.operation);
    assert.ok(seen.includes(1) && seen.includes(2), String(seen));
  } finally {
    tap.close();
  }
});

test("a TAP that is taken, missing, or no TAP is refused with what to do", (lab) => {
  const first = insideNamespace(lab.wire, () => TapDevice.open("kemA"));
  try {
    const cases: [string, boolean, RegExp, RegExp][] = [
      ["kemA", true, /another process uses it/, /end the other/],
      ["kemC", false, /no such network interface/, /ip tuntap add dev kemC/],
      ["bridge", true, /no plain TAP/, /one queue/],
    ];
    for (const [ifname, create, message, hint] of cases) {
      assert.throws(
        () => insideNamespace(lab.wire, () => TapDevice.open(ifname, { create })),
        (error) =>
          error instanceof TransportError && message.test(error.message) &&
          hint.test(error.hint ?? ""),
        ifname,
      );
    }
  } finally {
    first.close();
  }
  return Promise.resolve();
});

test("a TAP is made where there is none, and goes with its owner", (lab) => {
  const exists = () => insideNamespace(lab.wire, () => interfaceExists("made"));
  const tap = insideNamespace(lab.wire, () => TapDevice.open("made"));
  assert.equal(exists(), true);
  assert.equal(tap.send(QUESTION), false, "a TAP that is down takes nothing, and loses nothing");
  assert.equal(tap.isDown, true);
  tap.close();
  assert.equal(exists(), false);
  return Promise.resolve();
});

test("a TAP that vanishes says so, reading and writing", async (lab) => {
  const tap = insideNamespace(lab.wire, () => TapDevice.open("kemA"));
  try {
    await lab.run("wire", "ip", "link", "del", "kemA");
    for (const attempt of [() => tap.send(QUESTION), () => tap.receive(1, () => {})]) {
      assert.throws(
        attempt,
        (error) => error instanceof TransportError && error.message.includes("is gone"),
      );
    }
  } finally {
    tap.close();
  }
});

Deno.test({
  name: "e2e: hosts of a lab reach the client by its bridge, and each other until the cable is cut",
  ignore: missing !== undefined,
  fn: async () => {
    await using lab = await NetLab.make({ hosts: {} });
    // Nobody listens there: a host that is reached says so at once, one that is not says nothing.
    const knock = `: < /dev/tcp/${CABLE_IP.secondary}/4000`;
    const isReached = async () =>
      (await lab.run("primary", "timeout", "1", "bash", "-c", knock)).code === 1;
    await until(isReached, "the other host");
    await lab.setCable("cut");
    assert.equal(await isReached(), false);
    await lab.setCable("whole");
    await until(isReached, "the other host");
    // Who sent what, in the order in which it passed at the client's side.
    using sniffer = PortSniffer.open(lab.wire, ["primary-port", "secondary-port"]);
    const hosts = ["primary", "secondary", "primary"] as const;
    const seen: string[] = [];
    for (const host of hosts) {
      const tap = insideNamespace(lab[host], () => TapDevice.open("tap0", { create: false }));
      await until(() => {
        tap.send(QUESTION);
        const frames = sniffer.take().filter(({ frame }) => decodeArp(frame)?.operation === 1);
        seen.push(...frames.map(({ port }) => port));
        return frames.length > 0;
      }, `the question of the ${host}`);
      tap.close();
    }
    assert.equal(sniffer.missed, 0);
    assert.deepEqual(seen.filter((port, i) => port !== seen[i - 1]), [
      "primary-port",
      "secondary-port",
      "primary-port",
    ]);
    await lab.dispose();
    const left = await new Deno.Command("ip", { args: ["netns", "list"] }).output();
    for (const name of lab.namespaces) {
      assert.ok(!new TextDecoder().decode(left.stdout).includes(name), name);
    }
  },
});

async function processesIn(namespace: string): Promise<number[]> {
  const { stdout } = await new Deno.Command("ip", { args: ["netns", "pids", namespace] }).output();
  return new TextDecoder().decode(stdout).split("\n").filter(Boolean).map(Number);
}

Deno.test({
  name: "e2e: labs run side by side, and leave nothing, not even a process",
  ignore: missing !== undefined,
  fn: async () => {
    const [one, two] = await Promise.all([NetLab.make(), NetLab.make()]);
    const sleeper = one.command("client", ["sleep", "613"]).spawn();
    await until(async () => (await processesIn(one.client)).includes(sleeper.pid), "the sleeper");
    assert.notEqual(one.wire, two.wire);
    await one.dispose();
    assert.equal((await sleeper.status).signal, "SIGKILL");
    assert.equal((await two.run("client", "ip", "link", "show", "client0")).code, 0);
    await two.dispose();
    await two.dispose();
    const left = await new Deno.Command("ip", { args: ["netns", "list"] }).output();
    const text = new TextDecoder().decode(left.stdout);
    for (const name of [one.client, one.wire, two.client, two.wire]) {
      assert.ok(!text.includes(name));
    }
  },
});
