/** A guest that is kept in one way, from its boot until it is disposed of. */
import { QemuError } from "../lib/errors.ts";
import { askDurations, askStatus } from "../lib/host/system/ask_control.ts";
import { askReceiver, askTappedSender, type TappedStatus } from "../lib/lab/program/ask_end.ts";
import type { ReceiverStatus } from "../lib/control/receiver_status.ts";
import type { SenderDurations } from "../lib/control/sender_status.ts";
import { QmpClient } from "../lib/host/vm/qmp_client.ts";
import { migrateStopped } from "../lib/lab/vms/stopped_migration.ts";
import { startBooted } from "../lib/lab/vms/start_booted.ts";
import { startVm, type Vm, type VmOptions } from "../lib/lab/vms/vm.ts";
import { undescribed } from "./colo/colo_vm.ts";
import { inColo, prepareColo } from "./colo/enter_colo.ts";
import { say } from "../lib/lab/program/lab_process.ts";
import { GUEST_MEMORY_MIB, type GuestLab } from "./guest_lab.ts";
import { type GuestSetup, SYNC_INTERVAL_MS } from "./guest_setups.ts";
import { isThere, listens, startKemari } from "../lib/lab/program/started_kemari.ts";
import { StopWatch } from "../lib/lab/vms/stop_watch.ts";

const GUEST_COMMAND_MS = 300_000;
const MAC = "52:54:00:6b:65:6d";

/** Only one may run at a time in a lab: two would share the link, and the NIC's address. */
export class GuestRun implements AsyncDisposable {
  private constructor(
    readonly lab: GuestLab,
    readonly setup: GuestSetup,
    readonly vm: Vm,
    /** QEMU's own STOP and RESUME events. */
    readonly stops: StopWatch,
    private readonly control: string | undefined,
    /** The processes of both ends, if kemari protects the guest. */
    readonly ends: KemariEnds | undefined,
    private readonly stack: AsyncDisposableStack,
  ) {}

  /**
   * Starts a booted guest with its disk mounted at /mnt, and waits until it is protected.
   *
   * @param before A command that the guest runs before it is protected.
   */
  static async start(lab: GuestLab, setup: GuestSetup, before = "true"): Promise<GuestRun> {
    await using stack = new AsyncDisposableStack();
    const folder = Deno.makeTempDirSync({ dir: lab.folder, prefix: "run-" });
    stack.defer(() => Deno.removeSync(folder, { recursive: true }));
    await lab.setQuickAcks(setup.asItComes !== true);
    const started = setup.kind === "kemari" || setup.kind === "tapped"
      ? await startTapped(lab, setup, before, folder, stack)
      : await startPlain(lab, setup, before, folder, stack);
    const { vm, control, ends } = started;
    const stops = stack.use(await StopWatch.attach(vm.spareQmpPath));
    await say(vm, "mount -t ext4 /dev/vda /mnt");
    if (lab.net !== undefined) {
      await say(vm, `ip link set eth0 up && ip addr add ${lab.net.guestIp}/24 dev eth0`);
    }
    return new GuestRun(lab, setup, vm, stops, control, ends, stack.move());
  }

  get isProtected(): boolean {
    return this.setup.kind === "kemari";
  }

  /** Runs a command in the guest. @throws {QemuError} if it fails. */
  async run(command: string): Promise<string> {
    const { code, output } = await this.vm.run(command, { timeoutMs: GUEST_COMMAND_MS });
    if (code === 0) return output.trim();
    throw new QemuError(
      "guest",
      "GuestError",
      `with ${this.setup.name}, "${command.slice(0, 80)}" ended with ${code}: ${output.trim()}`,
    );
  }

  /** Bytes over the sync link so far; undefined if they are not counted. */
  linkBytes(): number | undefined {
    return this.lab.linkBytes(this.vm.pid);
  }

  /** Status of the protecting kemari. */
  status(): Promise<TappedStatus> {
    return askTappedSender(this.control!, this.lab.context.signal);
  }

  durations(): Promise<SenderDurations> {
    return askDurations(this.control!, this.lab.context.signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stack.disposeAsync();
  }
}

interface KemariEnds {
  readonly senderPid: number;
  readonly receiverPid: number;
  receiverStatus(): Promise<ReceiverStatus>;
}

interface Started {
  readonly vm: Vm;
  readonly control?: string;
  readonly ends?: KemariEnds;
}

/** Disk and NIC through kemari. */
async function startTapped(
  lab: GuestLab,
  setup: GuestSetup,
  before: string,
  folder: string,
  stack: AsyncDisposableStack,
): Promise<Started> {
  const { signal } = lab.context;
  const address = lab.secondaryAddress();
  const control = `${folder}/protect`;
  const image = await lab.image();
  const mode = setup.sharedDisk ? ",mode=shared" : "";
  const taps = (side: "primary" | "secondary", path: string) => [
    ...(lab.net === undefined ? [] : ["--net", `net0=unix:${folder}/${side}.net,tap:tap0`]),
    ...["--disk", `disk0=${path},unix:${folder}/${side}.nbd${mode}`],
  ];
  let receiverPid: number | undefined;
  if (setup.kind === "kemari") {
    const other = setup.sharedDisk ? image : await lab.image();
    const recv = startKemari(
      lab.kemariOn(
        "secondary",
        ...["recv", address, "--control", `${folder}/recv`],
        ...lab.security(),
        ...taps("secondary", other),
      ),
      stack,
    );
    await recv.until("kemari recv", () => listens(`${folder}/recv`, signal), signal);
    receiverPid = recv.pid;
  }
  const protect = startKemari(
    lab.kemariOn(
      "primary",
      ...["protect", "--qmp", `${folder}/qmp`, address, "--control", control],
      ...lab.security(),
      ...["--disk-sync", "none", "--sync-interval", `${SYNC_INTERVAL_MS}`],
      ...taps("primary", image),
      ...(setup.options ?? []),
    ),
    stack,
  );
  await protect.until("kemari protect", () => isThere(`${folder}/primary.nbd`), signal);
  const vm = stack.use(
    await startGuest(lab, {
      name: "primary",
      prefix: lab.on("primary"),
      disk: `file=nbd:unix:${folder}/primary.nbd,format=raw`,
      net: lab.net === undefined
        ? NO_NET
        : `stream,id=n0,server=off,addr.type=unix,addr.path=${folder}/primary.net`,
      args: setup.machineArgs,
      qmp: `${folder}/vm.qmp`,
    }),
  );
  await say(vm, before);
  // Only when the VM runs: an incoming VM cannot be protected.
  await Deno.symlink(`${folder}/vm.qmp`, `${folder}/qmp`);
  if (setup.kind === "kemari") {
    await protect.until("kemari protect", async () => {
      const { syncs } = await askStatus(control, signal);
      if (syncs < 3) return false;
      const { taps } = await askTappedSender(control, signal);
      return taps.disks.every(({ copied }) => copied === 1);
    }, signal);
  }
  const receiverStatus = () => askReceiver(`${folder}/recv`, signal);
  const ends = receiverPid === undefined
    ? undefined
    : { senderPid: protect.pid, receiverPid, receiverStatus };
  return { vm, control, ends };
}

/** QEMU alone, or a pair of QEMUs. */
async function startPlain(
  lab: GuestLab,
  setup: GuestSetup,
  before: string,
  folder: string,
  stack: AsyncDisposableStack,
): Promise<Started> {
  const { signal } = lab.context;
  const type = setup.kind === "pair" && !setup.asItComes ? undescribed() : "pc";
  const vm = stack.use(
    await startGuest(lab, {
      name: "primary",
      prefix: lab.on("primary"),
      disk: imageDisk(await lab.image()),
      net: lab.net === undefined ? NO_NET : TAP_NET,
      type,
    }),
  );
  await say(vm, before);
  if (setup.kind === "plain") return { vm };
  const secondary = stack.use(
    await startVm({
      ...machine(lab, {
        name: "secondary",
        prefix: lab.on("secondary"),
        disk: imageDisk(await lab.image()),
        // In COLO both guests run: only one of them may answer on the network.
        net: NO_NET,
        type,
      }),
      incoming: "defer",
    }),
  );
  const uri = lab.net === undefined && !setup.asItComes
    ? `unix:${folder}/pair`
    : `tcp:${lab.secondaryAddress()}`;
  await using other = await QmpClient.connect(secondary.qmpPath);
  await prepareColo(other, SYNC_INTERVAL_MS);
  await other.execute("migrate-incoming", { uri });
  await using client = await QmpClient.connect(vm.qmpPath);
  await prepareColo(client, SYNC_INTERVAL_MS);
  await migrateStopped(client, uri);
  await inColo(client, signal);
  return { vm };
}

const NO_NET = "hubport,id=n0,hubid=0";
/** A NIC with as few features as the other back ends have: features must be equal on both sides. */
const TAP_NET = "tap,id=n0,ifname=tap0,script=no,downscript=no,vnet_hdr=off";

interface MachineParts {
  readonly name: string;
  readonly prefix: readonly string[];
  /** Back end of the disk, in the syntax of `-drive`. */
  readonly disk: string;
  readonly net: string;
  /** Machine type with its properties; `pc` if absent. */
  readonly type?: string;
  readonly args?: readonly string[];
  /** Path of a QMP socket for the kemari that protects the VM. */
  readonly qmp?: string;
}

function imageDisk(path: string): string {
  return `file=${path},format=raw`;
}

/**
 * Starts a guest that goes on from a finished boot with an empty disk, which is not mounted yet.
 */
function startGuest(lab: GuestLab, parts: MachineParts): Promise<Vm> {
  const disk = `driver=null-co,size=${lab.diskBytes},read-zeroes=on`;
  const asBooted = machine(lab, { ...parts, prefix: [], disk, net: NO_NET, qmp: undefined });
  return startBooted(machine(lab, parts), asBooted);
}

/** The devices, which are the same for all back ends. */
function machine(
  lab: GuestLab,
  { name, prefix, disk, net, type, args = [], qmp }: MachineParts,
): VmOptions {
  return {
    name,
    machine: type,
    prefix,
    qemu: lab.qemu.program,
    guest: lab.guest,
    memoryMiB: GUEST_MEMORY_MIB,
    signal: lab.context.signal,
    args: [
      ...["-drive", `${disk},if=virtio`],
      ...["-netdev", net, "-device", `virtio-net-pci,netdev=n0,mac=${MAC},romfile=`],
      ...args,
      ...(qmp === undefined ? [] : ["-qmp", `unix:${qmp},server=on,wait=off`]),
    ],
  };
}
