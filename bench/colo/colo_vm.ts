/**
 * A VM whose checkpoints are measured: kept by `kemari protect`, by `kemari send`, by QEMU's own
 * secondary, or by a stand-in that takes no time.
 */
import type { GuestImages } from "../../lib/lab/guest/guest.ts";
import { migrateStopped } from "../../lib/lab/vms/stopped_migration.ts";
import { startVm, type Vm, type VmOptions } from "../../lib/lab/vms/vm.ts";
import { askStatus } from "../../lib/host/system/ask_control.ts";
import { askSender } from "../../lib/lab/program/ask_end.ts";
import type { SenderStatus } from "../../lib/control/sender_status.ts";
import { QmpClient } from "../../lib/host/vm/qmp_client.ts";
import { quoteWord } from "../../lib/host/takeover/standby_command.ts";
import { listens, startKemari } from "../../lib/lab/program/started_kemari.ts";
import { StopWatch } from "../../lib/lab/vms/stop_watch.ts";
import { WorkFolder } from "../../lib/lab/program/work_folder.ts";
import { inColo, prepareColo } from "./enter_colo.ts";
import { StandIn } from "./stand_in.ts";
import { until } from "../../lib/lab/program/until.ts";

/** The VM, and its connection with its secondary. */
export interface ColoSetup {
  readonly qemu: string;
  /** Without a guest only the firmware runs, or what boots from `devices`. */
  readonly guest?: GuestImages;
  /** Waits until the guest is ready to be measured; by default for the agent of `guest`, if any. */
  readonly ready?: (vm: Vm) => Promise<void>;
  readonly memoryMiB: number;
  /** `pc` if absent. */
  readonly machine?: string;
  /** TCG if absent. */
  readonly accelerator?: VmOptions["accelerator"];
  /** Devices beyond the serial ports. */
  readonly devices: readonly string[];
  readonly link: "tcp" | "unix";
  /** Words that run a command where both sides are: see {@link QuickLoopback}. */
  readonly prefix?: readonly string[];
  /** QEMU's own timer, and protect's: after this time a checkpoint begins by itself. */
  readonly intervalMs: number;
  /** How to start kemari. */
  readonly kemari: readonly string[];
  /** What both ends are told of their link's security; loopback and Unix sockets need nothing. */
  readonly security?: readonly string[];
  readonly signal: AbortSignal;
}

/** Further arguments of `kemari protect` and `kemari recv`. */
export interface ProtectedSetup extends ColoSetup {
  readonly mode: "colo" | "snapshot";
  readonly commit: "sync" | "async";
  readonly recvOptions?: readonly string[];
}

/** A VM whose first pass is over. */
export interface ColoVm {
  readonly vm: Vm;
  readonly stops: StopWatch;
  /** kemari's two ends; absent with QEMU's own pair. */
  readonly ends?: KemariEnds;
}

/** The processes of both ends, and the sender's status. */
interface KemariEnds {
  readonly senderPid: number;
  readonly receiverPid: number;
  status(): Promise<SenderStatus>;
}

const QUIET = ["--quiet", "--progress", "never"];

/**
 * QEMU ← `kemari protect` → link → `kemari recv`, each a process of its own.
 *
 * @param stack Ends all processes.
 * @throws {TransportError} kemari protect cannot protect this VM; the message has its reason.
 */
export async function protectedVm(
  setup: ProtectedSetup,
  stack: AsyncDisposableStack,
): Promise<ColoVm> {
  const { kemari, prefix = [], security = [], signal, intervalMs, mode, commit } = setup;
  const folder = stack.use(new WorkFolder()).path;
  const address = linkAddress(setup.link, folder);
  const receiver = await startRecv(setup, address, folder, stack, setup.recvOptions);
  const vm = await boot(setup, "primary", stack);
  const control = `${folder}/protect`;
  const protect = startKemari(
    [
      ...[...prefix, ...kemari, "protect", "--qmp", vm.qmpPath, address, "--control", control],
      ...["--mode", mode, "--commit", commit, "--sync-on", "none", ...QUIET],
      ...security,
      ...["--sync-interval", `${intervalMs}ms`, "--no-retry"],
    ],
    stack,
  );
  const status = () => askSender(control, signal);
  const enough = mode === "colo" ? 1 : 2;
  await protect.until(
    "kemari protect",
    async () => (await askStatus(control, signal)).syncs >= enough,
    signal,
  );
  const stops = stack.use(await StopWatch.attach(vm.spareQmpPath));
  if (mode === "colo") await inColo(stops.client, signal);
  return { vm, stops, ends: { senderPid: protect.pid, receiverPid: receiver.pid, status } };
}

/**
 * QEMU → `exec:kemari send` → link → `kemari recv`: QEMU has only the settings that COLO needs.
 *
 * @param stack Ends all processes.
 */
export async function sentVm(setup: ColoSetup, stack: AsyncDisposableStack): Promise<ColoVm> {
  const { kemari, security = [], signal } = setup;
  const folder = stack.use(new WorkFolder()).path;
  const address = linkAddress(setup.link, folder);
  const receiver = await startRecv(setup, address, folder, stack);
  const vm = await boot(setup, "primary", stack);
  const stops = stack.use(await StopWatch.attach(vm.spareQmpPath));
  await prepareColo(stops.client, setup.intervalMs);
  const control = `${folder}/send`;
  const send = [...kemari, "send", address, "--control", control, "--stream", "colo", ...QUIET]
    .concat(security);
  const command = `echo $$ > ${folder}/pid; exec ${send.map(quoteWord).join(" ")}`;
  await migrateStopped(stops.client, `exec:${command}`);
  await inColo(stops.client, signal);
  const senderPid = Number(Deno.readTextFileSync(`${folder}/pid`));
  const status = () => askSender(control, signal);
  return { vm, stops, ends: { senderPid, receiverPid: receiver.pid, status } };
}

/** A VM without kemari. */
export interface BareSetup extends ColoSetup {
  /** Whether QEMU describes its device state, as by default; else it has `suppress-vmdesc`. */
  readonly described: boolean;
}

/** A machine that does not describe its device state. Both sides must have it, or neither. */
export function undescribed(machine = "pc"): string {
  return `${machine},suppress-vmdesc=on`;
}

/**
 * Two QEMUs, as docs/system/qemu-colo.rst has them, without the parts for disks and network.
 *
 * @param stack Ends both QEMUs.
 */
export async function pairedVm(setup: BareSetup, stack: AsyncDisposableStack): Promise<ColoVm> {
  const { intervalMs, signal } = setup;
  const folder = stack.use(new WorkFolder()).path;
  const uri = linkAddress(setup.link, folder);
  const machine = machineOf(setup);
  const incoming = { ...vmOptions({ ...setup, machine }, "secondary"), incoming: "defer" };
  const secondary = stack.use(await startVm(incoming));
  const vm = await boot({ ...setup, machine }, "primary", stack);
  await using other = await QmpClient.connect(secondary.qmpPath);
  await prepareColo(other, intervalMs);
  await other.execute("migrate-incoming", { uri });
  const stops = stack.use(await StopWatch.attach(vm.spareQmpPath));
  await prepareColo(stops.client, intervalMs);
  await migrateStopped(stops.client, uri);
  await inColo(stops.client, signal);
  return { vm, stops };
}

/**
 * QEMU → Unix socket → a stand-in that gives a secondary's answers at once.
 *
 * @param stack Ends all processes.
 */
export async function unkeptVm(setup: BareSetup, stack: AsyncDisposableStack): Promise<ColoVm> {
  const { signal } = setup;
  const path = `${stack.use(new WorkFolder()).path}/stand-in`;
  const standIn = stack.use(new StandIn(path));
  const vm = await boot({ ...setup, machine: machineOf(setup) }, "primary", stack);
  const stops = stack.use(await StopWatch.attach(vm.spareQmpPath));
  await prepareColo(stops.client, setup.intervalMs);
  await migrateStopped(stops.client, `unix:${path}`);
  await until(
    async () => {
      const { status } = await stops.client.execute("query-migrate") as { status: string };
      return status === "device" || status === "colo";
    },
    "the first pass",
    { signal },
  );
  await standIn.ready(signal);
  await inColo(stops.client, signal);
  return { vm, stops };
}

function machineOf({ machine, described }: BareSetup): string | undefined {
  return described ? machine : undescribed(machine);
}

async function startRecv(
  { kemari, prefix = [], security = [], signal }: ColoSetup,
  address: string,
  folder: string,
  stack: AsyncDisposableStack,
  options: readonly string[] = [],
) {
  const control = `${folder}/recv`;
  const command = [...prefix, ...kemari, "recv", address, "--control", control];
  const recv = startKemari([...command, ...security, ...QUIET, ...options], stack);
  await recv.until("kemari recv", () => listens(control, signal), signal);
  return recv;
}

async function boot(setup: ColoSetup, name: string, stack: AsyncDisposableStack): Promise<Vm> {
  const vm = stack.use(await startVm(vmOptions(setup, name)));
  if (setup.ready !== undefined) await setup.ready(vm);
  else if (setup.guest !== undefined) await vm.ready();
  return vm;
}

function vmOptions(setup: ColoSetup, name: string): VmOptions {
  const { qemu, guest, memoryMiB, machine, accelerator, devices, prefix, signal } = setup;
  return { name, qemu, guest, memoryMiB, machine, accelerator, args: devices, prefix, signal };
}

/** An unused address in a form that kemari and QEMU both understand. */
function linkAddress(link: ColoSetup["link"], folder: string): string {
  if (link === "unix") return `unix:${folder}/link`;
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return `tcp:127.0.0.1:${listener.addr.port}`;
}
