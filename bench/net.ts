/**
 * `kemari bench net`: the net tap against QEMU connected straight to the same bridge.
 *
 * ```text
 * namespace client                     namespace wire
 *   iperf3, round trips ──veth── bridge ─┬─ TAP ── QEMU's own -netdev tap      ("straight")
 *                                        └─ TAP ── kemari ── -netdev stream    ("tap", "protected")
 * ```
 *
 * One guest has both NICs, each in its own subnet; kemari only passes frames through: `protect`
 * serves the tap and waits for a QEMU that never comes. A second guest, whose only NIC is kemari's,
 * is protected by `protect` and `recv` with their defaults. In every round each guest starts again
 * from its boot, and everything is measured once: iperf3 both ways, requests and responses of 64
 * bytes on one connection, and the losses of numbered datagrams and of TCP's segments. A third
 * guest is protected with QEMU's own TAP, 60 times a second: it shows how many frames QEMU loses at
 * its checkpoints (docs/QEMU.md).
 *
 * Results: the tap adds 0.05 ms to a round trip. A protected round trip took 26 ms, of which the VM
 * stood still for 2: the next checkpoint could not be requested before QEMU's RESUME was read; the
 * runtime reads it, and the runtime had its turn every 10 ms. Now the trigger tells the reactor
 * that it waits (`Reactor.awaitRuntime`), and a round trip takes 2.2 ms: 37 round trips a second
 * became 416, and bulk out of the guest 304 Mbit/s instead of 72.
 */
import { askStatus } from "../lib/host/system/ask_control.ts";
import { askTappedSender } from "../lib/lab/program/ask_end.ts";
import { KemariError, TransportError } from "../lib/errors.ts";
import type { BenchExperiment } from "../lib/report/bench_result.ts";
import { CountedClient } from "../lib/lab/network/counted_client.ts";
import {
  echoDatagrams,
  exchangeDatagrams,
  exchangeSegments,
} from "../lib/lab/network/counted_traffic.ts";
import { ensureGuest, type GuestImages } from "../lib/lab/guest/guest.ts";
import { guestPrograms } from "../lib/lab/guest/guest_programs.ts";
import { NetLab } from "../lib/lab/network/net_lab.ts";
import { exists } from "../lib/lab/provision/cache_dir.ts";
import { ensureQemu } from "../lib/lab/provision/qemu.ts";
import { ensureTool } from "../lib/lab/provision/tools.ts";
import { startBooted } from "../lib/lab/vms/start_booted.ts";
import type { Vm } from "../lib/lab/vms/vm.ts";
import { endAllVms, leaveSignalsToCaller } from "../lib/lab/vms/vm_cleanup.ts";
import type { BenchContext } from "./bench_context.ts";
import { end, say } from "../lib/lab/program/lab_process.ts";
import { kemariProgram } from "../lib/lab/program/kemari_program.ts";
import {
  type Arrivals,
  type Bypassed,
  netResult,
  type Protected,
  type WayResult,
} from "./net_result.ts";
import { measureRoundTrips } from "./round_trips.ts";
import { listens } from "../lib/lab/program/started_kemari.ts";
import { atExit, endQuietly, WorkFolder } from "../lib/lab/program/work_folder.ts";
import { delay } from "../lib/host/system/delay.ts";
import { until } from "../lib/lab/program/until.ts";

const MEMORY_MIB = 256;
const PORT = 7000;
const DATAGRAM_PORTS = [7001, 7002];
const DATAGRAMS = 4000;
const SEGMENTS = 3000;
/** Sixty checkpoints a second, for a guest whose output does not trigger checkpoints. */
const BYPASSED_INTERVAL_MS = 16;
const ROUNDS = 5;
const QUICK_ROUNDS = 2;
const SECONDS = 4;
const QUICK_SECONDS = 2;
/** Subnets 10.77.0 and 10.77.1: kemari's NIC, and QEMU's own. */
const SUBNETS = { tap: "10.77.0", straight: "10.77.1" } as const;

interface Bench {
  readonly context: BenchContext;
  readonly lab: NetLab;
  readonly folder: string;
  readonly qemu: string;
  readonly guest: GuestImages;
  readonly iperf3: string;
  readonly kemari: readonly string[];
  readonly seconds: number;
}

/** @throws {QemuError} A network lab or QEMU is not possible here. */
export async function benchNet(context: BenchContext): Promise<BenchExperiment> {
  const { quick, signal } = context;
  leaveSignalsToCaller();
  const forget = atExit(endAllVms);
  const rounds = context.rounds ?? (quick ? QUICK_ROUNDS : ROUNDS);
  context.progress("net", 0, 3 * rounds, "QEMU, guest and network");
  const tools = { signal, onProgress: (line: string) => context.say(`net: ${line}`) };
  const qemu = await ensureQemu("11.1", tools);
  const guest = await ensureGuest({
    extras: await guestPrograms(["iperf3", "socat"], tools),
    ...tools,
  });
  const { command, about } = kemariProgram();
  using work = new WorkFolder();
  await using lab = await NetLab.make();
  await lab.run("client", "ip", "addr", "add", `${SUBNETS.straight}.1/24`, "dev", "client0");
  const bench: Bench = {
    context,
    lab,
    folder: work.path,
    qemu: qemu.program,
    guest,
    iperf3: await ensureTool("iperf3", tools),
    kemari: command,
    seconds: context.seconds ?? (quick ? QUICK_SECONDS : SECONDS),
  };
  const straight: WayResult[] = [];
  const tapped: WayResult[] = [];
  const guarded: Protected[] = [];
  const bypassed: Bypassed[] = [];
  const experiment = (): BenchExperiment => ({
    ...netResult(straight, tapped, guarded, bypassed),
    conditions: {
      qemu: qemu.fullVersion,
      accelerator: "TCG",
      guest: `${MEMORY_MIB} MB, Linux ${guest.kernelVersion}, virtio-net without offloads`,
      link: "sync over a Unix socket, not limited",
      "iperf3's time": `${bench.seconds} s`,
    },
    notes: [
      `kemari is ${about}`,
      "straight: -netdev tap,vnet_hdr=off, since -netdev stream offers the guest no offloads either",
      "protected: protect and recv with their defaults, NIC only; against kemari's tap in the same " +
      "round, on a guest of its own",
      "lost segments: sent again, less those that the guest had already (DSACK)",
      "held-time split: of the requests and responses, not of bulk; the hold ends with the ACK",
    ],
    cannotShow: [
      "gigabits: under TCG the guest's own network stack is the limit, and client, guest and " +
      "kemari share two cores",
      "the latency of a network between two hosts, which every held packet waits for once more",
    ],
  });
  for (let round = 0; round < rounds; round++) {
    context.progress("net", 3 * round, 3 * rounds, "unprotected");
    const both = await unprotected(bench, round);
    straight.push(both.straight);
    tapped.push(both.tap);
    context.progress("net", 3 * round + 1, 3 * rounds, "protected");
    guarded.push(await protectedGuest(bench));
    context.progress("net", 3 * round + 2, 3 * rounds, "protected, QEMU's own TAP");
    bypassed.push(await bypassedGuest(bench));
    context.keep({ ...experiment(), partial: `${round + 1} of ${rounds} rounds` });
  }
  forget();
  return experiment();
}

/** A guest with a NIC of each kind. */
async function unprotected(
  bench: Bench,
  round: number,
): Promise<Record<keyof typeof SUBNETS, WayResult>> {
  await using stack = new AsyncDisposableStack();
  const folder = Deno.makeTempDirSync({ dir: bench.folder });
  const socket = `${folder}/net`;
  startKemari(bench, stack, [
    ...["protect", "--qmp", `${folder}/nobody`, `unix:${folder}/nobody`],
    ...["--net", `net0=unix:${socket},tap:kemA`],
  ]);
  await appears(socket, bench.context.signal);
  const vm = stack.use(
    await startGuest(bench, {
      n0: `stream,server=off,addr.type=unix,addr.path=${socket}`,
      n1: "tap,ifname=kemB,script=no,downscript=no,vnet_hdr=off",
    }),
  );
  // Each NIC answers ARP for its own address only: both are on one bridge.
  await say(vm, "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore");
  await say(vm, `ip addr add ${SUBNETS.straight}.2/24 dev eth1 && ip link set eth1 up`);
  const order = ["straight", "tap"] as const;
  const results: Partial<Record<keyof typeof SUBNETS, WayResult>> = {};
  for (const way of round % 2 === 0 ? order : [...order].reverse()) {
    results[way] = await measureWay(bench, `${SUBNETS[way]}.2`);
  }
  return results as Record<keyof typeof SUBNETS, WayResult>;
}

/** A guest that is protected. */
async function protectedGuest(bench: Bench): Promise<Protected> {
  const { signal } = bench.context;
  await using stack = new AsyncDisposableStack();
  const folder = Deno.makeTempDirSync({ dir: bench.folder });
  const link = `unix:${folder}/link`;
  const taps = (side: string, device: string) => [
    ...["--net", `net0=unix:${folder}/${side}.net,tap:${device}`],
  ];
  startKemari(bench, stack, ["recv", link, "--control", `${folder}/recv`, ...taps("b", "kemB")]);
  await ready("kemari recv", () => listens(`${folder}/recv`, signal), signal);
  const control = `${folder}/protect`;
  startKemari(bench, stack, [
    ...["protect", "--qmp", `${folder}/qmp`, link, "--control", control, ...taps("a", "kemA")],
  ]);
  await appears(`${folder}/a.net`, signal);
  stack.use(
    await startGuest(
      bench,
      { n0: `stream,server=off,addr.type=unix,addr.path=${folder}/a.net` },
      `${folder}/vm.qmp`,
    ),
  );
  // Only when the VM runs: an incoming VM cannot be protected.
  await Deno.symlink(`${folder}/vm.qmp`, `${folder}/qmp`);
  await ready("syncs", async () => (await askStatus(control, signal)).syncs >= 3, signal);
  const host = `${SUBNETS.tap}.2`;
  const trips = await roundTrips(bench, host);
  const status = await askTappedSender(control, signal);
  return { trips, status, ...await losses(bench, host), ...await bulk(bench, host) };
}

/** A protected guest whose NIC does not go through kemari: shows QEMU's own losses. */
async function bypassedGuest(bench: Bench): Promise<Bypassed> {
  const { signal } = bench.context;
  await using stack = new AsyncDisposableStack();
  const folder = Deno.makeTempDirSync({ dir: bench.folder });
  const link = `unix:${folder}/link`;
  startKemari(bench, stack, ["recv", link, "--control", `${folder}/recv`]);
  await ready("kemari recv", () => listens(`${folder}/recv`, signal), signal);
  stack.use(
    await startGuest(
      bench,
      { n0: "tap,ifname=kemA,script=no,downscript=no,vnet_hdr=off" },
      `${folder}/qmp`,
    ),
  );
  const control = `${folder}/protect`;
  startKemari(bench, stack, [
    ...["protect", "--qmp", `${folder}/qmp`, link, "--control", control],
    ...["--sync-interval", `${BYPASSED_INTERVAL_MS}`],
  ]);
  const syncs = async () => (await askStatus(control, signal)).syncs;
  await ready("syncs", async () => await syncs() >= 3, signal);
  const host = `${SUBNETS.tap}.2`;
  const begun = { syncs: await syncs(), at: performance.now() };
  const arrivals = { trips: await roundTrips(bench, host), ...await losses(bench, host) };
  const seconds = (performance.now() - begun.at) / 1000;
  return { ...arrivals, syncsPerSecond: (await syncs() - begun.syncs) / seconds };
}

type Netdevs = Readonly<Partial<Record<keyof typeof MACS, string>>>;

/**
 * Starts a booted guest with its first NIC up, an iperf3 server and an echo service.
 *
 * @param netdevs Back end of each NIC.
 * @param qmp Path of a QMP socket for the kemari that protects the VM.
 */
async function startGuest(bench: Bench, netdevs: Netdevs, qmp?: string): Promise<Vm> {
  const ids = Object.keys(netdevs) as (keyof typeof MACS)[];
  const machine = {
    name: "net",
    qemu: bench.qemu,
    prefix: bench.lab.prefix("wire"),
    guest: bench.guest,
    memoryMiB: MEMORY_MIB,
    signal: bench.context.signal,
    args: [
      ...ids.flatMap((id) => nic(id, netdevs[id]!)),
      ...(qmp === undefined ? [] : ["-qmp", `unix:${qmp},server=on,wait=off`]),
    ],
  };
  // The same devices, not connected to anything.
  const asBooted = ids.flatMap((id, index) => nic(id, `hubport,hubid=${index}`));
  const vm = await startBooted(machine, { ...machine, prefix: [], args: asBooted });
  try {
    await say(vm, `ip addr add ${SUBNETS.tap}.2/24 dev eth0 && ip link set eth0 up`);
    await say(vm, "/opt/iperf3 -s -D > /dev/null 2>&1");
    await say(vm, `nc -ll -p ${PORT} -e cat > /dev/null 2>&1 &`);
    // The echo of datagrams serves one client: each way into the guest has its own echo.
    for (const port of DATAGRAM_PORTS) await say(vm, echoDatagrams(port));
    return vm;
  } catch (error) {
    await vm.dispose();
    throw error;
  }
}

/**
 * Hardware addresses, the same in every guest: a client that had to ask for a new address would
 * have to wait.
 */
const MACS = { n0: "52:54:00:6b:65:01", n1: "52:54:00:6b:65:02" } as const;

function nic(id: keyof typeof MACS, netdev: string): string[] {
  const [kind, ...rest] = netdev.split(",");
  const mac = MACS[id];
  return [
    ...["-netdev", [kind, `id=${id}`, ...rest].join(",")],
    ...["-device", `virtio-net-pci,netdev=${id},mac=${mac},romfile=`],
  ];
}

async function measureWay(bench: Bench, host: string): Promise<WayResult> {
  const trips = await roundTrips(bench, host);
  return { trips, ...await losses(bench, host), ...await bulk(bench, host) };
}

/** Datagrams that did not come back, and segments that were sent again because they were lost. */
async function losses(
  { lab }: Bench,
  host: string,
): Promise<Pick<Arrivals, "lostDatagrams" | "lostSegments">> {
  const port = DATAGRAM_PORTS[host.startsWith(SUBNETS.tap) ? 0 : 1];
  using datagrams = CountedClient.connect("udp", lab.client, host, port);
  const numbers = await exchangeDatagrams(datagrams, DATAGRAMS);
  using connection = CountedClient.connect("tcp", lab.client, host, PORT);
  const { sent, sentAgain, hadAlready } = await exchangeSegments(connection, SEGMENTS);
  return {
    lostDatagrams: 1000 * (DATAGRAMS - numbers.length) / DATAGRAMS,
    lostSegments: 1000 * (sentAgain - hadAlready) / sent,
  };
}

function roundTrips({ lab, seconds, context }: Bench, host: string): Promise<number[]> {
  return measureRoundTrips(lab.client, host, PORT, seconds, context.signal);
}

async function bulk(bench: Bench, host: string): Promise<{ out: number; in: number }> {
  return { out: await iperf(bench, host, "-R"), in: await iperf(bench, host) };
}

/** Between two tests the server does not listen for a moment. */
const IPERF_ATTEMPTS = 5;
/** How long a kemari may take to start. */
const READY_MS = 30_000;
const IPERF_PAUSE_MS = 500;

/** @returns Mbit/s, as the receiving end saw them. */
async function iperf(bench: Bench, host: string, ...options: string[]): Promise<number> {
  const { iperf3, lab, seconds, context } = bench;
  for (let attempt = 1;; attempt++) {
    try {
      return await iperfOnce();
    } catch (error) {
      // Between two tests the server closes its listener, with all waiting connections, and opens
      // another.
      const isBetween = /refused|control message: Connection reset/.test((error as Error).message);
      if (attempt === IPERF_ATTEMPTS || !isBetween) throw error;
      await delay(IPERF_PAUSE_MS);
    }
  }

  async function iperfOnce(): Promise<number> {
    const words = [iperf3, "-c", host, "-J", "-t", `${seconds}`, ...options];
    const child = lab.command("client", words, {
      stdout: "piped",
      stderr: "null",
      signal: context.signal,
    });
    const { stdout } = await child.output();
    context.signal.throwIfAborted();
    const text = new TextDecoder().decode(stdout);
    try {
      return JSON.parse(text).end.sum_received.bits_per_second / 1e6;
    } catch (cause) {
      const why = /"error":\s*"([^"]*)"/.exec(text)?.[1] ?? text.slice(-200);
      throw new TransportError(host, "read", `iperf3: ${why}`, { cause });
    }
  }
}

function startKemari(bench: Bench, stack: AsyncDisposableStack, args: readonly string[]): void {
  const child = bench.lab.command("wire", [
    ...[...bench.kemari, ...args, "--quiet", "--progress", "never"],
  ], { stdout: "null", stderr: "null" }).spawn();
  const forget = atExit(() => endQuietly(child));
  stack.defer(async () => {
    await end(child);
    forget();
  });
}

async function appears(path: string, signal: AbortSignal): Promise<void> {
  await ready(path, () => exists(path), signal);
}

/** Waits until a kemari is ready; its errors meanwhile are expected, since it has just started. */
async function ready(
  what: string,
  isSo: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  const quietly = () =>
    isSo().catch((error) => {
      if (error instanceof KemariError) return false;
      throw error;
    });
  await until(quietly, what, { signal, limitMs: READY_MS });
}
