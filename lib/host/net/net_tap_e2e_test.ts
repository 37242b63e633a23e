/** The net tap between a real QEMU and a real TAP, with a client in a namespace of its own. */

import assert from "node:assert/strict";
import { ensureGuest } from "../../lab/guest/guest.ts";
import { NetLab, netLabMissing } from "../../lab/network/net_lab.ts";
import { insideNamespace, NetSniffer } from "../../lab/network/net_sniffer.ts";
import { cacheDir } from "../../lab/provision/cache_dir.ts";
import { ensureQemu } from "../../lab/provision/qemu.ts";
import { startBooted } from "../../lab/vms/start_booted.ts";
import type { Vm } from "../../lab/vms/vm.ts";
import type { KemariError } from "../../errors.ts";
import { describeFrame } from "../../packet/testing/describe_frame.ts";
import { decodeEthernet, macText, u16 } from "../../packet/ethernet.ts";
import { decodeIpv4, IP_PROTOCOL } from "../../packet/ipv4.ts";
import { NetTap } from "./net_tap.ts";
import type { NetTapEvents } from "./net_tap_events.ts";
import { Reactor } from "../system/reactor.ts";
import { parseNetTap } from "./net_tap_address.ts";
import { until } from "../../lab/program/until.ts";

const missing = await netLabMissing();
if (missing) console.error(`SKIP network tests: ${missing}`);

const MAC = "52:54:00:12:34:56";
const BUSYBOX = `${cacheDir()}/guest/bin/busybox`;
const ICMP_ECHO = 8;
const ICMP_HEADER_BYTES = 8;

/** A guest at 10.77.0.2 whose NIC is at a tap of this process. */
class Scene implements AsyncDisposable {
  readonly told: string[] = [];
  readonly faults: KemariError[] = [];
  readonly #stop = new AbortController();
  #loop: Promise<void> | undefined;
  readonly #reactor = new Reactor();
  lab!: NetLab;
  tap!: NetTap;
  vm!: Vm;

  static async open(device: string): Promise<Scene> {
    const qemu = await ensureQemu("11.1");
    const guest = await ensureGuest({ kernel: device === "e1000" ? "full" : "cloud" });
    const scene = new Scene();
    try {
      scene.lab = await NetLab.make();
      const folder = await Deno.makeTempDir({ prefix: "kemari-tap-" });
      scene.#folder = folder;
      const events: NetTapEvents = {
        held: () => scene.told.push("held"),
        released: (epoch) => scene.told.push(`released ${epoch}`),
        fault: (error) => scene.faults.push(error),
      };
      const address = parseNetTap(`net0=unix:${folder}/net,tap:kemA`);
      // The TAP is opened before the first wait, so that this thread is still inside.
      scene.tap = await insideNamespace(
        scene.lab.wire,
        () => NetTap.open(address, scene.#reactor, { events }, scene.#stop.signal),
      );
      scene.#loop = scene.#reactor.run(() => scene.#stop.signal.aborted, scene.#stop.signal);
      scene.#loop.catch(() => {});
      const machine = { qemu: qemu.program, guest, name: `net-${device}` };
      const nic = ["-device", `${device},romfile=,netdev=n0,mac=${MAC}`];
      const net = `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/net,reconnect-ms=100`;
      scene.vm = await startBooted(
        { ...machine, args: ["-netdev", net, ...nic] },
        { ...machine, args: ["-netdev", "hubport,id=n0,hubid=0", ...nic] },
      );
      await scene.guest(`ip addr add ${scene.lab.guestIp}/24 dev eth0 && ip link set eth0 up`);
    } catch (error) {
      await scene[Symbol.asyncDispose]();
      throw error;
    }
    return scene;
  }

  #folder = "";

  /** Runs a command in the guest that must succeed. */
  async guest(command: string, timeoutMs = 30_000): Promise<string> {
    const { code, output } = await this.vm.run(command, { timeoutMs });
    assert.equal(code, 0, `${command}: ${output}`);
    return output;
  }

  /** Runs busybox where the clients are. */
  async client(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.lab.run("client", BUSYBOX, ...args);
    assert.equal(code, 0, `${args.join(" ")}: ${stdout}${stderr}`);
    return stdout;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.vm?.dispose();
    this.#stop.abort(new Error("over"));
    await this.#loop?.catch(() => {});
    this.tap?.close();
    this.#reactor.close();
    await this.lab?.dispose();
    if (this.#folder !== "") await Deno.remove(this.#folder, { recursive: true });
  }
}

/** The guest's pings among frames, as `bytes of data:sequence`. */
function pingsIn(frames: readonly Uint8Array[]): string[] {
  const found: string[] = [];
  for (const frame of frames) {
    const ip = decodeIpv4(frame);
    if (ip?.protocol !== IP_PROTOCOL.ICMP || frame[ip.payloadStart] !== ICMP_ECHO) continue;
    const { payloadStart: at, payloadEnd } = ip;
    found.push(`${payloadEnd - at - ICMP_HEADER_BYTES}:${u16(frame, at + 6)}`);
  }
  return found;
}

function pings(bytes: number, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${bytes}:${i}`);
}

/** The guest sends random bytes to the client, who answers with the checksum of what came. */
async function sendOutChecked(scene: Scene, megabytes: number): Promise<void> {
  const { lab } = scene;
  const made = await scene.guest(`kemari-fill ${megabytes}; cut -d' ' -f1 /mem/fill.sha256`);
  const listener = lab.command(
    "client",
    [BUSYBOX, "nc", "-l", "-p", "7001", "-e", "sha256sum"],
  ).spawn();
  // The listener may need its moment.
  const answer = await scene.guest(
    `for i in 1 2 3 4 5 6; do nc ${lab.clientIp} 7001 < /mem/fill 2>&- && break; sleep 0.3; done`,
    60_000,
  );
  assert.equal(answer.slice(0, 64), made.trim());
  await listener.status;
}

Deno.test({
  name: "e2e: ping and TCP with checksums pass both ways, and held frames leave in order only",
  ignore: missing !== undefined,
  fn: async () => {
    await using scene = await Scene.open("virtio-net-pci");
    const { tap, lab } = scene;
    using sniffer = NetSniffer.open(lab.client, "client0");

    assert.match(
      await scene.client("ping", "-c", "5", "-i", "0.1", lab.guestIp),
      / 0% packet loss/,
    );

    // World → guest → world: an echo of 4 MB, the same bytes back.
    const megabytes = 4;
    await scene.guest("nc -l -p 7000 -e cat > /dev/null 2>&1 &");
    const echoed = await lab.run(
      "client",
      "sh",
      "-c",
      `head -c ${megabytes}000000 /dev/urandom > $0.in && ` +
        `${BUSYBOX} nc -w 20 ${lab.guestIp} 7000 < $0.in | head -c ${megabytes}000000 > $0.out; ` +
        "cmp $0.in $0.out && echo same; rm -f $0.in $0.out",
      `${scene.vm.folder}/echo`,
    );
    assert.equal(echoed.stdout, "same\n", echoed.stderr);

    // Guest → world, with a checksum of the guest's own.
    await sendOutChecked(scene, 4);
    assert.ok(tap.counters.passedOut > 4_000_000 / 1500);
    assert.equal(tap.counters.releasedFrames, 0);

    // Held: the guest speaks, the client hears nothing before the release, then all in order.
    sniffer.take();
    tap.hold();
    // Nobody answers: what the guest sends is told apart by its size and number.
    const speak = (bytes: number, count: number) =>
      scene.guest(`ping -q -c ${count} -i 0.02 -W 1 -s ${bytes} ${lab.clientIp} || true`);
    await speak(100, 20);
    tap.drain();
    const first = tap.closeEpoch(1);
    assert.deepEqual(pingsIn(first.frames), pings(100, 20));
    await speak(200, 10);
    tap.drain();
    assert.deepEqual(pingsIn(tap.closeEpoch(2).frames), pings(200, 10));
    await speak(300, 1);
    const fromGuest = (frame: Uint8Array) => macText(decodeEthernet(frame)!.source) === MAC;
    assert.deepEqual(sniffer.take().filter(fromGuest).map(describeFrame), [], "not one frame");
    const heard: string[] = [];
    const hears = (count: number) =>
      until(() => heard.push(...pingsIn(sniffer.take())) >= count, "pings");
    tap.release(1);
    await hears(20);
    assert.deepEqual(heard, pings(100, 20));
    tap.release(2);
    await hears(30);
    tap.passThrough();
    await hears(31);
    assert.deepEqual(heard, [...pings(100, 20), ...pings(200, 10), ...pings(300, 1)]);
    assert.deepEqual(scene.told.filter((each) => each !== "held"), ["released 1", "released 2"]);
    assert.deepEqual(scene.faults, []);
    assert.ok(tap.counters.hold.count >= 30);
    assert.match(
      await scene.client("ping", "-c", "2", "-i", "0.1", lab.guestIp),
      / 0% packet loss/,
    );
  },
});

Deno.test({
  name: "e2e: a TCP transfer out of the guest survives being held and released in epochs",
  ignore: missing !== undefined,
  fn: async () => {
    await using scene = await Scene.open("virtio-net-pci");
    const { tap } = scene;
    tap.hold();
    let epoch = 0;
    // Stands in for the transactions: every 10 ms one closes, and is acknowledged 10 ms later.
    const timer = setInterval(() => {
      tap.release(epoch);
      tap.drain();
      tap.closeEpoch(++epoch);
    }, 10);
    try {
      await sendOutChecked(scene, 2);
    } finally {
      clearInterval(timer);
    }
    assert.ok(scene.told.filter((each) => each === "held").length > 10);
    assert.ok(tap.counters.hold.p50 >= 5, `held for ${tap.counters.hold.p50} ms`);
    assert.equal(tap.counters.droppedByOut, 0);
  },
});

Deno.test({
  name: "e2e: any NIC model passes; a TAP that vanishes is reported, and the guest runs on",
  ignore: missing !== undefined,
  fn: async () => {
    await using scene = await Scene.open("e1000");
    const { tap, lab } = scene;
    await sendOutChecked(scene, 1);
    assert.equal((await lab.run("wire", "ip", "link", "del", "kemA")).code, 0);
    await until(() => scene.faults.length > 0, "a fault");
    assert.match(scene.faults[0].message, /tap:kemA: the interface is gone/);
    assert.equal(tap.counters.outConnected, false);
    await scene.guest(`ping -q -c 2 -W 1 ${lab.clientIp} || true`);
    assert.ok(tap.counters.queuedFrames > 0, "what the guest says waits for a TAP");
    assert.equal(tap.counters.guestConnected, true);
  },
});
