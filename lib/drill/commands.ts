import { CABLE_IP, type LabHost } from "../lab/network/net_lab.ts";
import type { VmOptions } from "../lab/vms/vm.ts";
import { DEVICE_MODELS, type DeviceModel } from "./plan.ts";
import type { DrillCase, HostsContext } from "./report.ts";

const LINK_PORT = 4000;

/** Heartbeats in a grace time, so that a late heartbeat does no harm. */
const HEARTBEATS = 6;

/**
 * The command lines of a drill's kemaris and QEMUs, and the files by which they find each other:
 *
 * ```text
 * FOLDER/HOST.img            a host's image; shared.img where both have one
 * FOLDER/HOST.net, HOST.nbd  the NIC and the disk, which the host's kemari serves to its QEMU
 * FOLDER/HOST.qmp            its QEMU's QMP
 * FOLDER/booted.qmp          the first primary's, once it is to be protected
 * FOLDER/HOST.recv, protect  control sockets
 * FOLDER/fence               what makes sure of a primary
 * FOLDER/key                 both kemaris' key, if their link is encrypted
 * ```
 */
export class DrillCommands {
  readonly device: DeviceModel;

  constructor(
    readonly folder: string,
    readonly plan: DrillCase,
    private readonly context: HostsContext,
  ) {
    this.device = DEVICE_MODELS[plan.devices];
  }

  image(host: LabHost): string {
    return `${this.folder}/${this.plan.diskMode === "shared" ? "shared" : host}.img`;
  }
  recvControl(host: LabHost): string {
    return `${this.folder}/${host}.recv`;
  }
  /** Control socket of the first primary's kemari; a later primary has that of its `recv`. */
  get protectControl(): string {
    return `${this.folder}/protect`;
  }

  /** The file with both ends' key, where the link is encrypted. */
  get key(): string | undefined {
    return this.context.settings.key ? `${this.folder}/key` : undefined;
  }

  /** @param standby Further arguments for a `recv` with a warm standby. */
  recv(host: LabHost, graceMs: number, standby: readonly string[] = []): string[] {
    return [
      ...["recv", `${CABLE_IP[host]}:${LINK_PORT}`, "--control", this.recvControl(host)],
      ...this.#security,
      ...["--on-loss", "activate", "--fence", `${this.folder}/fence`],
      ...patience(graceMs),
      ...standby,
      ...this.#taps(host),
    ];
  }

  /** Where the first primary's kemari waits for a QEMU to protect, with its taps served. */
  get bootedQmp(): string {
    return `${this.folder}/booted.qmp`;
  }
  qmp(host: LabHost): string {
    return `${this.folder}/${host}.qmp`;
  }

  /** The first primary's kemari. */
  protect(onSecondaryLoss: "continue" | "stop"): string[] {
    return [
      ...this.#protect(this.bootedQmp, "secondary", onSecondaryLoss),
      ...["--control", this.protectControl],
      ...this.#taps("primary"),
    ];
  }

  /** Asks the `recv` behind a control socket, which has taken over on a host, to protect the VM. */
  protectVia(control: string, host: LabHost, peer: LabHost): string[] {
    return [...this.#protect(this.qmp(host), peer, "stop"), "--via", control];
  }

  /** A host's QEMU. */
  machine(host: LabHost): VmOptions {
    const { folder } = this;
    return this.#machine(host, [
      ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/${host}.net`],
      ...["-drive", `file=nbd:unix:${folder}/${host}.nbd,format=raw,if=none,id=d0`],
      ...this.device.args,
      ...["-qmp", `unix:${this.qmp(host)},server=on,wait=off`],
    ]);
  }

  /** The same machine alone, to boot on an image: without kemari, its NIC connected to nothing. */
  lonelyMachine(image: string): VmOptions {
    return this.#machine("boot", [
      ...["-netdev", "hubport,id=n0,hubid=0"],
      ...["-drive", `file=${image},format=raw,if=none,id=d0`],
      ...this.device.args,
    ]);
  }

  #machine(name: string, args: readonly string[]): VmOptions {
    const { qemu, guests, settings, signal } = this.context;
    return {
      qemu: qemu.program,
      guest: guests[this.device.kernel]!,
      name,
      memoryMiB: settings.memoryMiB,
      signal,
      args,
    };
  }

  #protect(qmp: string, peer: LabHost, onSecondaryLoss: "continue" | "stop"): string[] {
    return [
      ...["protect", `${CABLE_IP[peer]}:${LINK_PORT}`, "--qmp", qmp],
      ...this.#security,
      ...["--commit", this.plan.commit, ...patience(this.context.settings.graceMs)],
      ...["--sync-interval", `${this.context.settings.syncIntervalMs}`],
      ...["--on-secondary-loss", onSecondaryLoss],
    ];
  }

  /** The cable is the hosts' own. */
  get #security(): string[] {
    return this.key === undefined ? ["--plain"] : ["--key", this.key];
  }

  #taps(host: LabHost): string[] {
    const { folder, plan } = this;
    return [
      ...["--net", `net0=unix:${folder}/${host}.net,tap:tap0`],
      ...["--disk", `disk0=${this.image(host)},unix:${folder}/${host}.nbd,mode=${plan.diskMode}`],
    ];
  }
}

function patience(graceMs: number): string[] {
  const heartbeatMs = Math.max(1, Math.min(250, Math.floor(graceMs / HEARTBEATS)));
  return ["--heartbeat", `${heartbeatMs}ms`, "--grace", `${graceMs}ms`];
}
