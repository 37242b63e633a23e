/** The two hosts of a drill: a kemari and a QEMU on each, what the guest runs, and the fence. */
import { askReceiver, askTappedSender, type TappedStatus } from "../lab/program/ask_end.ts";
import type { ReceiverStatus } from "../control/receiver_status.ts";
import { makeKeyFile } from "../host/keygen.ts";
import { QmpClient } from "../host/vm/qmp_client.ts";
import { selfCommand } from "../host/system/self_command.ts";
import { type LabHost, NetLab } from "../lab/network/net_lab.ts";
import { shellQuote } from "../lab/provision/cache_dir.ts";
import { type RunningVm, StandbyGuest } from "../lab/vms/standby_guest.ts";
import { resumeArrived } from "../lab/vms/stopped_migration.ts";
import { startVm, type Vm } from "../lab/vms/vm.ts";
import { DrillCommands } from "./commands.ts";
import { BLOCK_BYTES, ledgerScript } from "./ledger.ts";
import type { Boot } from "./booted_vms.ts";
import {
  copyImage,
  type ImageLayout,
  imageLayout,
  makeEmptyImage,
  makeImage,
  writeFence,
} from "./images.ts";
import type { DeviceModel } from "./plan.ts";
import { answers, end, kill, output, say, whileAlive } from "../lab/program/lab_process.ts";
import type { DrillCase, HostsContext } from "./report.ts";

export const SERVICE_PORT = 7000;

/** Together with the ballast: 128 MiB at 25 MB/s. */
const COPY_CABLE_RATE = "200mbit";

/** How much longer the secondary waits in runs where the primary is to notice first. */
export const LATE_MS = 2500;

const SERVICE = `#!/bin/sh
while read n; do
  echo "$n" >> /mnt/log && sync
  echo "$n" >> /mem/log
  echo "ack $n"
done
`;

/** A host's role at the moment; hosts keep their names when roles change. */
export type Role = "primary" | "secondary";

/** Two hosts and a VM; the caller that starts them disposes of them. */
export class DrillHosts implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #context: HostsContext;
  readonly #commands: DrillCommands;
  lab!: NetLab;
  primary!: RunningVm;
  secondary!: RunningVm;
  /** The primary's kemari; after a change of roles, the `recv` which has taken over. */
  protect!: Deno.ChildProcess;
  recv!: Deno.ChildProcess;
  /** After a change of roles: the process that asked the primary's kemari to protect. */
  #asker: Deno.ChildProcess | undefined;
  #at: Readonly<Record<Role, LabHost>> = { primary: "primary", secondary: "secondary" };
  #protectControl: string;
  #qmp: QmpClient | undefined;
  #secondaries = 0;
  #fifo = "";

  private constructor(
    readonly folder: string,
    readonly plan: DrillCase,
    context: HostsContext,
    /** After how long a silence the secondary counts the primary as lost. */
    readonly secondaryGraceMs: number,
  ) {
    this.#context = context;
    this.#commands = new DrillCommands(folder, plan, context);
    this.#protectControl = this.#commands.protectControl;
    // Before the VMs end: else the secondary would fence a primary that is shutting down.
    const putAway = () => this.#putFenceAway();
    context.signal.addEventListener("abort", putAway);
    this.#stack.defer(() => context.signal.removeEventListener("abort", putAway));
  }

  /**
   * Makes the hosts and boots the VM. Except for `copy`, it is protected when this returns.
   *
   * @throws {KemariError} with the last lines of its kemaris' logs.
   */
  static async start(
    folder: string,
    plan: DrillCase,
    context: HostsContext,
    secondaryGraceMs = context.settings.graceMs,
  ): Promise<DrillHosts> {
    const hosts = new DrillHosts(folder, plan, context, secondaryGraceMs);
    try {
      await hosts.#start();
      return hosts;
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The host that has a role. */
  hostOf(role: Role): LabHost {
    return this.#at[role];
  }
  get device(): DeviceModel {
    return this.#commands.device;
  }
  get protectControl(): string {
    return this.#protectControl;
  }
  get recvControl(): string {
    return this.#commands.recvControl(this.#at.secondary);
  }
  /** Where the ledger begins in an image. */
  get ledgerOffset(): number {
    return this.#layout.fileSystemBytes + this.#layout.ballastBytes;
  }
  /** The ledger as it was when the fence ran: all committed writes, before the VM went on. */
  get ledgerAtTakeover(): string {
    return `${this.folder}/ledger-at-takeover`;
  }
  get #layout(): ImageLayout {
    return imageLayout(this.plan.fault);
  }

  /** The image of the host that has a role. */
  image(role: Role): string {
    return this.#commands.image(this.#at[role]);
  }

  senderStatus(): Promise<TappedStatus> {
    return askTappedSender(this.protectControl, this.#context.signal);
  }
  receiverStatus(): Promise<ReceiverStatus> {
    return askReceiver(this.recvControl, this.#context.signal);
  }

  /** The run state of the primary's QEMU; undefined if QEMU does not answer in time. */
  async runState(withinMs: number): Promise<string | undefined> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => resolve(undefined), withinMs);
    });
    const asked = this.#qmp!.execute("query-status");
    asked.catch(() => {});
    try {
      const reply = await Promise.race([asked, late]) as { status?: string } | undefined;
      return reply?.status;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Whether everything committed from here on would survive the primary. */
  async isProtected(): Promise<boolean> {
    const status = await this.senderStatus().catch(() => undefined);
    if (this.#context.settings.standby === "warm") {
      const receiver = await this.receiverStatus().catch(() => undefined);
      if (receiver?.standby?.state !== "ready") return false;
    }
    return status?.taps !== undefined && status.state === "synchronizing" && status.syncs >= 3 &&
      status.taps.disks.every(({ copied }) => copied === 1);
  }

  async waitUntilProtected(): Promise<void> {
    await whileAlive(
      this.protect,
      "kemari protect",
      () => this.isProtected(),
      this.#context.signal,
    );
  }

  /** Starts `kemari recv` and a QEMU that waits with it; also to replace earlier ones. */
  async startSecondary(): Promise<void> {
    if (this.#context.settings.standby === "warm") return await this.#startWarm();
    const { folder } = this;
    const { signal } = this.#context;
    const fifoPath = this.#fifo = `${folder}/takeover-${++this.#secondaries}`;
    await output("mkfifo", [fifoPath], signal);
    // Held open both ways, so that recv can serve the disk before QEMU reads the fifo.
    const fifo = await Deno.open(fifoPath, { read: true, write: true });
    this.#stack.defer(() => fifo.close());
    const host = this.#at.secondary;
    await writeFence(folder, this.image("secondary"), this.ledgerOffset, this.ledgerAtTakeover);
    this.recv = this.#kemari(
      host,
      this.#commands.recv(host, this.secondaryGraceMs),
      `> ${fifoPath}`,
    );
    await answers(this.recvControl, this.recv, signal);
    this.secondary = this.#stack.use(
      await startVm({
        ...this.#commands.machine(host),
        incoming: "fd:0",
        stdin: { path: this.#fifo },
      }),
    );
  }

  /** kemari itself starts the QEMU, with the replica's files as its RAM. */
  async #startWarm(): Promise<void> {
    const { folder } = this;
    const host = this.#at.secondary;
    const ramDir = `/dev/shm/${folder.slice(folder.lastIndexOf("/") + 1)}-${host}`;
    this.#stack.defer(() => Deno.remove(ramDir, { recursive: true }).catch(() => {}));
    await writeFence(folder, this.image("secondary"), this.ledgerOffset, this.ledgerAtTakeover);
    const guest = this.#stack.use(await StandbyGuest.prepare(this.#commands.machine(host)));
    const standby = ["--standby", guest.command, "--ram-dir", ramDir];
    this.recv = this.#kemari(host, this.#commands.recv(host, this.secondaryGraceMs, standby));
    this.secondary = guest;
    await answers(this.recvControl, this.recv, this.#context.signal);
  }

  /** kill -9 of the secondary's host. */
  async killSecondary(): Promise<void> {
    kill(this.recv.pid);
    await this.secondary.powerCut();
    await this.recv.status;
  }

  /**
   * After a takeover: the survivor is now the primary, the host that died comes back as its
   * secondary, with its old image, and the VM is protected again.
   */
  async changeRoles(): Promise<void> {
    const { primary, secondary } = this.#at;
    await this.#qmp?.close().catch(() => {});
    this.#protectControl = this.recvControl;
    this.#at = { primary: secondary, secondary: primary };
    this.primary = this.secondary;
    this.protect = this.recv;
    this.#qmp = await QmpClient.connect(this.primary.spareQmpPath);
    await this.#notePids();
    await this.startSecondary();
    const words = this.#commands.protectVia(this.#protectControl, secondary, primary);
    this.#asker = this.#kemari(secondary, words);
    await this.waitUntilProtected();
  }

  /** kill -9 of the primary's host. */
  async killPrimary(): Promise<void> {
    kill(this.protect.pid);
    if (this.#asker !== undefined) kill(this.#asker.pid);
    await this.primary.powerCut();
    await this.protect.status;
  }

  /** Makes the fence wait until {@link releaseFence}. */
  async holdFence(): Promise<void> {
    await Deno.writeTextFile(`${this.folder}/fence.hold`, "");
  }
  async releaseFence(): Promise<void> {
    await Deno.remove(`${this.folder}/fence.hold`);
  }
  /** Whether the secondary has begun to fence. */
  get fenceAsked(): boolean {
    return exists(`${this.folder}/fence.asked`);
  }

  /** The log of a side's kemari. */
  async log(side: LabHost): Promise<string> {
    return await Deno.readTextFile(`${this.folder}/${side}.log`).catch(() => "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#putFenceAway();
    await this.#qmp?.close().catch(() => {});
    await this.#stack.disposeAsync();
  }

  /** The run is over: from now on the fence does nothing. */
  #putFenceAway(): void {
    try {
      Deno.writeTextFileSync(`${this.folder}/fence.over`, "");
    } catch (error) {
      // Without the folder there is no fence; every process must be ended nevertheless.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  async #start(): Promise<void> {
    const { folder, plan } = this;
    const commands = this.#commands;
    const { narrate, signal } = this.#context;
    const isCopy = plan.fault === "copy";
    const hosts = isCopy ? { cableRate: COPY_CABLE_RATE } : {};
    // A VM with ballast is another machine: its disk is larger.
    const booted = isCopy ? undefined : await this.#context.booted?.get(plan.devices, this.#boot);
    this.lab = this.#stack.use(await NetLab.make({ hosts }));
    await makeEmptyImage(commands.image("secondary"), this.#layout);
    // The guest has cached the first blocks of the disk that it booted with.
    if (booted) await copyImage(booted.image, commands.image("primary"), signal);
    else await this.#boot.makeImage(commands.image("primary"));
    narrate("two hosts on one network: each with a kemari that serves the VM's disk and NIC");
    if (commands.key !== undefined) makeKeyFile(commands.key, "drill");
    const onLoss = plan.fault === "receiver" || isCopy ? "continue" : "stop";
    this.protect = this.#kemari("primary", commands.protect(onLoss));
    await whileAlive(
      this.protect,
      "kemari protect",
      () => Promise.resolve(exists(`${folder}/primary.nbd`) && exists(`${folder}/primary.net`)),
      signal,
    );
    if (!isCopy) await this.startSecondary();
    narrate(
      `${booted ? "starting the booted" : "booting the"} primary ` +
        `(${this.#context.settings.memoryMiB} MiB, ${plan.devices}), ` +
        "with a service that writes to its disk",
    );
    const machine = commands.machine("primary");
    const incoming = booted && { incoming: `exec:cat ${shellQuote(booted.stream)}` };
    const primary: Vm = this.#stack.use(await startVm({ ...machine, ...incoming }));
    this.primary = primary;
    await this.#notePids();
    if (booted) await resumeArrived(primary, signal);
    else await primary.ready();
    this.#qmp = await QmpClient.connect(primary.spareQmpPath);
    await this.#startService();
    // Not earlier: checkpoints make a boot three times as long.
    await Deno.symlink(commands.qmp("primary"), commands.bootedQmp);
    if (isCopy) return;
    await this.waitUntilProtected();
    narrate("protected; the disk is the same on both sides");
  }

  /** How to boot a VM like the primary. */
  get #boot(): Boot {
    const { narrate, signal } = this.#context;
    return {
      makeImage: (path) => makeImage(path, this.#layout, { onProgress: narrate, signal }),
      machine: (image) => {
        narrate(`booting a ${this.plan.devices} VM once, for every run`);
        return this.#commands.lonelyMachine(image);
      },
    };
  }

  async #startService(): Promise<void> {
    const { primary, lab } = this;
    const { disk } = this.device;
    const script = ledgerScript(disk, this.ledgerOffset / BLOCK_BYTES);
    await say(primary, `mount -t ext4 ${disk} /mnt`);
    await say(primary, `ip link set eth0 up && ip addr add ${lab.guestIp}/24 dev eth0`);
    await say(primary, `cat > /mem/serve <<'END'\n${SERVICE}END\nchmod +x /mem/serve`);
    await say(primary, `cat > /mem/ledger <<'END'\n${script}END\nchmod +x /mem/ledger`);
    await say(primary, `nc -ll -p ${SERVICE_PORT} -e /mem/serve > /dev/null 2>&1 &`);
    await say(primary, "/mem/ledger > /dev/null 2>&1 &");
  }

  /** The processes that the fence is to end. */
  async #notePids(): Promise<void> {
    const pids = `${this.primary.pid} ${this.protect.pid}`;
    await Deno.writeTextFile(`${this.folder}/fence.pids`, pids);
  }

  /** Starts a kemari on a host; its log goes into a file. */
  #kemari(side: LabHost, args: readonly string[], redirection = ""): Deno.ChildProcess {
    const { folder, lab } = this;
    const own = this.#context.kemari;
    const kemari = own === undefined ? selfCommand([...args]) : [...own, ...args];
    const command = [...lab.prefix(side), ...kemari];
    const child = new Deno.Command("/bin/sh", {
      args: ["-c", `exec "$@" ${redirection} 2>> ${folder}/${side}.log`, "sh", ...command],
      stdin: "null",
      stdout: "null",
      stderr: "null",
      env: { NO_COLOR: "1" },
    }).spawn();
    this.#stack.defer(() => end(child));
    return child;
  }
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
