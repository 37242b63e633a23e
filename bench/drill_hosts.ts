/** The two hosts of a drill: a kemari and a QEMU on each, what the guest runs, and the fence. */
import { TransportError } from "../lib/errors.ts";
import type { ReceiverStatus, SenderStatus } from "../lib/host/end_status.ts";
import { QmpClient } from "../lib/host/qmp_client.ts";
import { selfCommand } from "../lib/host/self_command.ts";
import type { TapStatus } from "../lib/host/tap_set.ts";
import { CABLE_IP, type LabHost, NetLab } from "../fixtures/net_lab.ts";
import { ensureTool } from "../fixtures/provision/tools.ts";
import { startVm, type Vm } from "../fixtures/vm.ts";
import { BLOCK_BYTES, LEDGER_BLOCKS, LEDGER_BYTES, ledgerScript } from "./drill_ledger.ts";
import { DEVICE_MODELS, type DeviceModel } from "./drill_plan.ts";
import { answers, ask, end, kill, output, say, until, whileAlive } from "./drill_process.ts";
import type { DrillCase, RunContext } from "./drill_report.ts";

export const SERVICE_PORT = 7000;
const LINK_PORT = 4000;

const MIB = 2 ** 20;
const FILE_SYSTEM_BYTES = 60 * MIB;
/** What makes the first copy last long enough to be interrupted: 128 MiB at 25 MB/s. */
const BALLAST_BYTES = 128 * MIB;
const COPY_CABLE_RATE = "200mbit";

/** Short, so that a cut cable is noticed soon; long enough for a machine that is busy. */
const LINK_TIMES = ["--heartbeat", "250ms", "--grace", "1500ms"];

const SERVICE = `#!/bin/sh
while read n; do
  echo "$n" >> /mnt/log && sync
  echo "$n" >> /mem/log
  echo "ack $n"
done
`;

export type TappedStatus = SenderStatus & { readonly taps: TapStatus };

/** Two hosts and a VM; whoever starts them disposes of them. */
export class DrillHosts implements AsyncDisposable {
  readonly #stack = new AsyncDisposableStack();
  readonly #context: RunContext;
  readonly device: DeviceModel;
  lab!: NetLab;
  primary!: Vm;
  secondary!: Vm;
  protect!: Deno.ChildProcess;
  recv!: Deno.ChildProcess;
  #qmp: QmpClient | undefined;
  #secondaries = 0;
  #fifo = "";

  private constructor(readonly folder: string, readonly plan: DrillCase, context: RunContext) {
    this.#context = context;
    this.device = DEVICE_MODELS[plan.devices];
    // Before the VMs hear of it: else the secondary would fence a primary that is winding up.
    const putAway = () => this.#putFenceAway();
    context.signal.addEventListener("abort", putAway);
    this.#stack.defer(() => context.signal.removeEventListener("abort", putAway));
  }

  /**
   * Makes the hosts and boots the VM. Except for `copy`, it is protected when this returns.
   *
   * @throws {KemariError} with the last that its kemaris said.
   */
  static async start(folder: string, plan: DrillCase, context: RunContext): Promise<DrillHosts> {
    const hosts = new DrillHosts(folder, plan, context);
    try {
      await hosts.#start();
      return hosts;
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw error;
    }
  }

  get protectControl(): string {
    return `${this.folder}/protect`;
  }
  get recvControl(): string {
    return `${this.folder}/recv`;
  }
  /** Where the ledger begins in an image. */
  get ledgerOffset(): number {
    return FILE_SYSTEM_BYTES + this.#ballastBytes;
  }
  /** The ledger as it was when the fence ran: what was committed, before the VM went on. */
  get ledgerAtTakeover(): string {
    return `${this.folder}/ledger-at-takeover`;
  }
  get #ballastBytes(): number {
    return this.plan.fault === "copy" ? BALLAST_BYTES : 0;
  }

  image(side: LabHost): string {
    return `${this.folder}/${this.plan.diskMode === "shared" ? "shared" : side}.img`;
  }

  senderStatus(): Promise<TappedStatus> {
    return ask(this.protectControl, this.#context.signal);
  }
  receiverStatus(): Promise<ReceiverStatus> {
    return ask(this.recvControl, this.#context.signal);
  }

  /** The primary's run state, as its QEMU says; undefined if it says nothing in time. */
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

  /** Starts `kemari recv` and a QEMU that waits behind it, again if there were others before. */
  async startSecondary(): Promise<void> {
    const { folder } = this;
    const { signal } = this.#context;
    const fifoPath = this.#fifo = `${folder}/takeover-${++this.#secondaries}`;
    await output("mkfifo", [fifoPath], signal);
    // Held open both ways, so that recv can serve the disk before QEMU reads the fifo.
    const fifo = await Deno.open(fifoPath, { read: true, write: true });
    this.#stack.defer(() => fifo.close());
    this.recv = this.#kemari(
      "secondary",
      [
        ...["recv", `${CABLE_IP.secondary}:${LINK_PORT}`, "--control", this.recvControl],
        ...["--on-loss", "activate", "--fence", `${folder}/fence`, ...LINK_TIMES],
      ],
      `> ${fifoPath}`,
    );
    await answers(this.recvControl, this.recv, signal);
    this.secondary = this.#stack.use(
      await startVm({
        ...this.#machine("secondary"),
        incoming: "fd:0",
        stdin: { path: this.#fifo },
      }),
    );
  }

  /** kill -9 of the secondary's host. */
  async killSecondary(): Promise<void> {
    kill(this.recv.pid);
    await this.secondary.powerCut();
    await this.recv.status;
  }

  /** kill -9 of the primary's host. */
  async killPrimary(): Promise<void> {
    kill(this.protect.pid);
    await this.primary.powerCut();
    await this.protect.status;
  }

  /** Lets the fence wait until {@link releaseFence}. */
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

  /** What a side's kemari has logged. */
  async log(side: LabHost): Promise<string> {
    return await Deno.readTextFile(`${this.folder}/${side}.log`).catch(() => "");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#putFenceAway();
    await this.#qmp?.close().catch(() => {});
    await this.#stack.disposeAsync();
  }

  /** The run is over: nobody is to be fenced any more. */
  #putFenceAway(): void {
    Deno.writeTextFileSync(`${this.folder}/fence.over`, "");
  }

  async #start(): Promise<void> {
    const { folder, plan } = this;
    const { narrate, signal } = this.#context;
    const isCopy = plan.fault === "copy";
    const hosts = isCopy ? { cableRate: COPY_CABLE_RATE } : {};
    this.lab = this.#stack.use(await NetLab.make({ hosts }));
    await this.#makeImages();
    await this.#writeFence();
    narrate("two hosts on one network: each with a kemari that serves the VM's disk and NIC");
    const onLoss = plan.fault === "receiver" || isCopy ? "continue" : "stop";
    this.protect = this.#kemari("primary", [
      ...["protect", `${CABLE_IP.secondary}:${LINK_PORT}`, "--qmp", `${folder}/primary.qmp`],
      ...["--control", this.protectControl, "--commit", plan.commit, ...LINK_TIMES],
      ...["--sync-interval", `${this.#context.settings.syncIntervalMs}`],
      ...["--on-secondary-loss", onLoss],
    ]);
    await whileAlive(
      this.protect,
      "kemari protect",
      () => Promise.resolve(exists(`${folder}/primary.nbd`) && exists(`${folder}/primary.net`)),
      signal,
    );
    if (!isCopy) await this.startSecondary();
    narrate(
      `booting the primary (${this.#context.settings.memoryMiB} MiB, ${plan.devices}), ` +
        "with a service that writes to its disk",
    );
    this.primary = this.#stack.use(await startVm(this.#machine("primary")));
    await Deno.writeTextFile(`${folder}/primary.pids`, `${this.primary.pid} ${this.protect.pid}`);
    await this.primary.ready();
    this.#qmp = await QmpClient.connect(this.primary.spareQmpPath);
    await this.#startService();
    if (isCopy) return;
    await this.waitUntilProtected();
    narrate("protected; the disk is the same on both sides");
  }

  async #makeImages(): Promise<void> {
    const { signal } = this.#context;
    const bytes = this.ledgerOffset + LEDGER_BYTES;
    for (const side of ["primary", "secondary"] as const) {
      await Deno.writeFile(this.image(side), new Uint8Array(0));
      await Deno.truncate(this.image(side), bytes);
    }
    const mke2fs = await ensureTool("mke2fs", { onProgress: this.#context.narrate, signal });
    const blocks = FILE_SYSTEM_BYTES / BLOCK_BYTES;
    const image = this.image("primary");
    await output(
      mke2fs,
      ["-q", "-F", "-t", "ext4", "-b", `${BLOCK_BYTES}`, image, `${blocks}`],
      signal,
    );
    if (this.#ballastBytes === 0) return;
    using file = await Deno.open(image, { write: true });
    await file.seek(FILE_SYSTEM_BYTES, Deno.SeekMode.Start);
    const chunk = new Uint8Array(65536);
    for (let at = 0; at < this.#ballastBytes; at += chunk.length) {
      await file.write(crypto.getRandomValues(chunk));
    }
  }

  /**
   * Out of band, as a power switch is: it reaches the primary whatever the cable is like. Behind it
   * the primary is dead and the VM does not run yet: the moment to keep what was committed.
   */
  async #writeFence(): Promise<void> {
    const { folder } = this;
    const first = this.ledgerOffset / BLOCK_BYTES;
    await Deno.writeTextFile(
      `${folder}/fence`,
      `#!/bin/sh
[ -e '${folder}/fence.over' ] && exit 1
touch '${folder}/fence.asked'
while [ -e '${folder}/fence.hold' ]; do sleep 0.02; done
for pid in $(cat '${folder}/primary.pids'); do
  kill -9 $pid 2>/dev/null
  while kill -0 $pid 2>/dev/null; do sleep 0.01; done
done
dd if='${this.image("secondary")}' of='${this.ledgerAtTakeover}' bs=${BLOCK_BYTES} skip=${first} \\
  count=${LEDGER_BLOCKS} 2>/dev/null
`,
      { mode: 0o755 },
    );
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

  /** Starts a kemari on a host, with that host's taps; what it logs goes into a file. */
  #kemari(side: LabHost, args: readonly string[], redirection = ""): Deno.ChildProcess {
    const { folder, lab, plan } = this;
    const image = this.image(side);
    const command = [
      ...lab.prefix(side),
      ...selfCommand([
        ...args,
        ...["--net", `net0=unix:${folder}/${side}.net,tap:tap0`],
        ...["--disk", `disk0=${image},unix:${folder}/${side}.nbd,mode=${plan.diskMode}`],
      ]),
    ];
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

  #machine(side: LabHost) {
    const { qemu, guests, settings, signal } = this.#context;
    const { folder } = this;
    return {
      qemu: qemu.program,
      guest: guests[this.device.kernel]!,
      name: side,
      memoryMiB: settings.memoryMiB,
      signal,
      args: [
        ...["-netdev", `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/${side}.net`],
        ...["-drive", `file=nbd:unix:${folder}/${side}.nbd,format=raw,if=none,id=d0`],
        ...this.device.args,
        ...["-qmp", `unix:${folder}/${side}.qmp,server=on,wait=off`],
      ],
    };
  }
}

export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

/** Waits for a condition as {@link until} does, and says what it was that did not come. */
export async function expectSoon(
  what: string,
  condition: () => boolean | Promise<boolean>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await until(condition, signal);
  } catch (cause) {
    signal.throwIfAborted();
    throw new TransportError("drill", "read", `${what} did not happen in time`, { cause });
  }
}
