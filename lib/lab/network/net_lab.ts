/**
 * A network of its own for tests, the drill and the benchmarks: nothing of it touches the host's.
 *
 * ```text
 *   namespace client                    namespace wire
 *   ┌───────────────────┐   veth   ┌──────────────────────────────┐
 *   │ client0 10.77.0.1 ├──────────┤ client-port ─ bridge ┬ kemA  │ ← TAP devices: kemari's
 *   └───────────────────┘          │                      └ kemB  │   `--net n=…,tap:kemA`
 *                                  └──────────────────────────────┘
 * ```
 *
 * kemari (or QEMU itself) runs in `wire`; whoever talks to the guest runs in `client`. A guest is
 * meant to be 10.77.0.2.
 *
 * With `hosts`, two hosts hang on that bridge in place of the TAP devices, and a cable of their own
 * lies between them, which can be cut:
 *
 * ```text
 *   namespace wire                     namespace primary (secondary alike)
 *   bridge ┬ primary-port ───veth─── uplink ─ bridge ─ tap0
 *          └ secondary-port …        sync0 10.78.0.1 (10.78.0.2) ───veth─── namespace cable
 * ```
 */

import { QemuError } from "../../errors.ts";
import { exists, findProgram } from "../provision/cache_dir.ts";

/** What kind of network. */
interface NetLabOptions {
  /** TAP devices to make, at the bridge and up. Default: `kemA` and `kemB`. */
  readonly taps?: readonly string[];
  /** A limit both ways between client and bridge, as tc writes it: `100mbit`. Default: none. */
  readonly rate?: string;
  /** Two hosts with a TAP device `tap0` each, and a cable between them. */
  readonly hosts?: {
    /** A limit of the cable, each way, as tc writes it. Default: none. */
    readonly cableRate?: string;
  };
}

/** A namespace of a lab; the hosts only with the option of that name. */
type LabSide = "client" | "wire" | LabHost;
export type LabHost = "primary" | "secondary";

const HOSTS: readonly LabHost[] = ["primary", "secondary"];

/** A host's address on the cable. */
export const CABLE_IP: Readonly<Record<LabHost, string>> = {
  primary: "10.78.0.1",
  secondary: "10.78.0.2",
};

/** What a command in a namespace left. */
interface LabResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The client's address, and the one that the guest is to take. */
export const CLIENT_IP = "10.77.0.1";
const GUEST_IP = "10.77.0.2";
const NET_PREFIX_BITS = 24;

const NAME_PREFIX = "kemari-lab";
const NETNS_FOLDER = "/run/netns";
let labs = 0;

/**
 * Why there can be no such network here, with what to do about it; `undefined` if there can.
 * A test says SKIP with it.
 */
export async function netLabMissing(): Promise<string | undefined> {
  for (const program of ["ip", "tc"]) {
    if (!await findProgram(program)) return `no ${program} here: install iproute2`;
  }
  if (!await exists("/dev/net/tun")) return "no /dev/net/tun here: modprobe tun";
  if (Deno.uid() !== 0) return "network namespaces need root: run as root";
  const probe = `${NAME_PREFIX}-${Deno.pid}-${++labs}-probe`;
  const made = await runPlain("ip", ["netns", "add", probe]);
  if (made.code !== 0) return `no network namespaces here: ${made.stderr.trim()}`;
  const tap = await runPlain("ip", ["-n", probe, "tuntap", "add", "dev", "probe", "mode", "tap"]);
  await runPlain("ip", ["netns", "del", probe]);
  return tap.code === 0 ? undefined : `no TAP devices here: ${tap.stderr.trim()}`;
}

/** Two namespaces and what connects them. `await using lab = await NetLab.make()`. */
export class NetLab implements AsyncDisposable {
  readonly clientIp = CLIENT_IP;
  readonly guestIp = GUEST_IP;
  /** Name of the namespace where clients of the guest run. */
  readonly client: string;
  /** Name of the namespace with the bridge and the TAP devices. */
  readonly wire: string;
  readonly primary: string;
  readonly secondary: string;
  readonly #cable: string;
  #disposed: Promise<void> | undefined;

  private constructor(id: string, readonly taps: readonly string[], readonly hasHosts: boolean) {
    this.client = `${id}-client`;
    this.wire = `${id}-wire`;
    this.primary = `${id}-primary`;
    this.secondary = `${id}-secondary`;
    this.#cable = `${id}-cable`;
  }

  /** The names of all its namespaces. */
  get namespaces(): readonly string[] {
    const { client, wire, primary, secondary } = this;
    return this.hasHosts ? [client, wire, primary, secondary, this.#cable] : [client, wire];
  }

  /**
   * Makes the network; what an earlier process left behind when it was killed is removed first.
   *
   * @throws {QemuError} with what is missing on this machine.
   */
  static async make(options: NetLabOptions = {}): Promise<NetLab> {
    const missing = await netLabMissing();
    if (missing !== undefined) throw new QemuError("network lab", "Missing", missing);
    await removeStale();
    const id = `${NAME_PREFIX}-${Deno.pid}-${++labs}`;
    const taps = options.taps ?? (options.hosts ? [] : ["kemA", "kemB"]);
    const lab = new NetLab(id, taps, options.hosts !== undefined);
    rememberLab(lab);
    try {
      await lab.#build(options);
    } catch (error) {
      await lab.dispose();
      throw error;
    }
    return lab;
  }

  async #build(options: NetLabOptions): Promise<void> {
    const { client, wire } = this;
    for (const name of this.namespaces) {
      await ip("netns", "add", name);
      await ip("-n", name, "link", "set", "lo", "up");
    }
    await ip("-n", wire, "link", "add", "bridge", "type", "bridge", "forward_delay", "0");
    await ip(
      ...["-n", wire, "link", "add", "client-port", "type", "veth"],
      ...["peer", "name", "client0", "netns", client],
    );
    for (const tap of this.taps) await ip("-n", wire, "tuntap", "add", "dev", tap, "mode", "tap");
    for (const port of ["client-port", ...this.taps]) {
      await ip("-n", wire, "link", "set", port, "master", "bridge");
    }
    // Without addresses of their own these say nothing by themselves.
    for (const link of ["bridge", "client-port", ...this.taps]) {
      await ip("-n", wire, "link", "set", link, "addrgenmode", "none", "up");
    }
    await ip("-n", client, "link", "set", "client0", "addrgenmode", "none", "up");
    await ip("-n", client, "addr", "add", `${CLIENT_IP}/${NET_PREFIX_BITS}`, "dev", "client0");
    if (options.rate !== undefined) {
      for (const [name, link] of [[client, "client0"], [wire, "client-port"]]) {
        await must("tc", [
          ...["-n", name, "qdisc", "add", "dev", link, "root", "tbf"],
          ...["rate", options.rate, "burst", "256k", "latency", "100ms"],
        ]);
      }
    }
    if (options.hosts) await this.#buildHosts(options.hosts.cableRate);
  }

  async #buildHosts(cableRate: string | undefined): Promise<void> {
    const cable = this.#cable;
    const bridge = ["type", "bridge", "forward_delay", "0"];
    await ip("-n", cable, "link", "add", "cable", ...bridge);
    await ip("-n", cable, "link", "set", "cable", "addrgenmode", "none", "up");
    for (const host of HOSTS) {
      const inHost = ["-n", this[host]];
      await ip(...inHost, "link", "add", "bridge", ...bridge);
      await ip(...inHost, "tuntap", "add", "dev", "tap0", "mode", "tap");
      const links = [["uplink", `${host}-port`, this.wire], ["sync0", `${host}-end`, cable]];
      for (const [own, far, there] of links) {
        await ip(
          ...[...inHost, "link", "add", own, "type", "veth"],
          ...["peer", "name", far, "netns", there],
        );
        const master = own === "uplink" ? "bridge" : "cable";
        await ip("-n", there, "link", "set", far, "master", master, "addrgenmode", "none", "up");
      }
      for (const port of ["uplink", "tap0"]) {
        await ip(...inHost, "link", "set", port, "master", "bridge");
      }
      for (const link of ["bridge", "uplink", "tap0", "sync0"]) {
        await ip(...inHost, "link", "set", link, "addrgenmode", "none", "up");
      }
      await ip(...inHost, "addr", "add", `${CABLE_IP[host]}/30`, "dev", "sync0");
      if (cableRate === undefined) continue;
      await must("tc", [
        ...["-n", this[host], "qdisc", "add", "dev", "sync0", "root", "tbf"],
        ...["rate", cableRate, "burst", "256k", "latency", "100ms"],
      ]);
    }
  }

  /** Pulls the cable between the hosts out, or plugs it in again: nobody is told. */
  async setCable(state: "cut" | "whole"): Promise<void> {
    const upOrDown = state === "cut" ? "down" : "up";
    await ip("-n", this.#cable, "link", "set", "primary-end", upOrDown);
  }

  /** The words in front of a command that is to run in a namespace. */
  prefix(side: LabSide): readonly string[] {
    return ["ip", "netns", "exec", this[side]];
  }

  /** A command that is to run in a namespace; the caller starts it and ends it. */
  command(
    side: LabSide,
    args: readonly string[],
    options: Omit<Deno.CommandOptions, "args"> = {},
  ): Deno.Command {
    const [program, ...rest] = [...this.prefix(side), ...args];
    return new Deno.Command(program, { stdin: "null", ...options, args: rest });
  }

  /** Runs a command in a namespace to its end. */
  async run(side: LabSide, ...args: string[]): Promise<LabResult> {
    const output = await this.command(side, args, { stdout: "piped", stderr: "piped" }).output();
    const text = new TextDecoder();
    return {
      code: output.code,
      stdout: text.decode(output.stdout),
      stderr: text.decode(output.stderr),
    };
  }

  /** Ends what still runs in the namespaces, and removes them. May be called again. */
  dispose(): Promise<void> {
    return this.#disposed ??= (async () => {
      for (const name of this.namespaces) await removeNamespace(name);
      forgetLab(this);
    })();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

async function removeNamespace(name: string): Promise<void> {
  if (!await exists(`${NETNS_FOLDER}/${name}`)) return;
  const { stdout } = await runPlain("ip", ["netns", "pids", name]);
  for (const pid of stdout.split("\n").filter((line) => line !== "").map(Number)) {
    if (pid === Deno.pid) continue;
    try {
      Deno.kill(pid, "SIGKILL");
    } catch { /* It has ended already. */ }
  }
  await runPlain("ip", ["netns", "del", name]);
}

/** Removes the labs of processes that no longer live. */
async function removeStale(): Promise<void> {
  if (!await exists(NETNS_FOLDER)) return;
  for await (const entry of Deno.readDir(NETNS_FOLDER)) {
    const pid = new RegExp(`^${NAME_PREFIX}-(\\d+)-`).exec(entry.name)?.[1];
    if (pid !== undefined && !await exists(`/proc/${pid}`)) await removeNamespace(entry.name);
  }
}

async function runPlain(program: string, args: readonly string[]): Promise<LabResult> {
  const output = await new Deno.Command(program, { args: [...args], stdin: "null" }).output();
  const text = new TextDecoder();
  return {
    code: output.code,
    stdout: text.decode(output.stdout),
    stderr: text.decode(output.stderr),
  };
}

async function must(program: string, args: readonly string[]): Promise<void> {
  const { code, stderr } = await runPlain(program, args);
  if (code === 0) return;
  throw new QemuError("network lab", "Refused", `${program} ${args.join(" ")}: ${stderr.trim()}`);
}

function ip(...args: string[]): Promise<void> {
  return must("ip", args);
}

const living = new Set<NetLab>();

/** A process that ends without disposing of its labs still removes them, if it ends by itself. */
function removeAllNow(): void {
  for (const lab of living) {
    for (const name of lab.namespaces) {
      new Deno.Command("ip", { args: ["netns", "del", name], stdout: "null", stderr: "null" })
        .outputSync();
    }
  }
  living.clear();
}

function rememberLab(lab: NetLab): void {
  if (living.size === 0) globalThis.addEventListener("unload", removeAllNow);
  living.add(lab);
}

function forgetLab(lab: NetLab): void {
  living.delete(lab);
  if (living.size === 0) globalThis.removeEventListener("unload", removeAllNow);
}
