/** What `kemari doctor` examines: this host, and a running VM. */
import { statfs } from "node:fs/promises";
import { QemuError } from "../errors.ts";
import type { GuestTimer } from "../qmp/guest_timer.ts";
import type { MigrationSupport } from "../qmp/migration_support.ts";
import type { OutsideOutput } from "../qmp/outside_output.ts";
import { formatBytes } from "../units.ts";
import { libc } from "./system/libc.ts";
import { askOutside } from "./vm/outside_watch.ts";
import { readGuestTimer, readMigrationSupport } from "./vm/probe_qemu.ts";
import { QmpClient } from "./vm/qmp_client.ts";

/** A finding on this host. */
export interface HostCheck {
  readonly name: string;
  /** `missing`: a feature is not available, or slower; `fault`: kemari cannot work here at all. */
  readonly state: "ok" | "missing" | "fault";
  readonly found: string;
  /** What it is needed for. */
  readonly neededFor: string;
}

/** A QEMU program, and why it was chosen. */
export interface FoundQemu {
  readonly program: string;
  readonly source: "--qemu" | "KEMARI_QEMU" | "PATH" | "cache";
}

/** A running VM. */
export interface VmFindings {
  readonly socket: string;
  readonly name: string | null;
  /** Machine type, such as `pc-q35-11.1`. */
  readonly machine: string | null;
  readonly cpus: number | null;
  readonly memoryBytes: number | null;
  readonly support: MigrationSupport;
  readonly timer: GuestTimer;
  readonly outside: OutsideOutput;
}

const CAP_NET_ADMIN_BIT = 12n;

/** Examines this host. Changes nothing, and opens devices only to close them again. */
export async function examineHost(): Promise<HostCheck[]> {
  const checks = [examineSystem(), examineProcessors(), examineMemory(), await examineShm()];
  checks.push(await examineKvm(), await examineRights(), await examineTun());
  for (const [name, neededFor] of HOST_PROGRAMS) {
    const path = await findOnPath(name);
    checks.push({
      name,
      state: path === undefined ? "missing" : "ok",
      found: path ?? "not on PATH",
      neededFor,
    });
  }
  return checks;
}

const HOST_PROGRAMS = [
  ["ip", "setting up the TAP devices and bridges of protected NICs"],
  ["tc", "slow and lossy links in experiments"],
] as const;

function examineSystem(): HostCheck {
  const system = `${Deno.build.os} ${Deno.build.arch}`;
  const neededFor = "everything";
  try {
    libc();
    return { name: "system", state: "ok", found: `${system}, glibc`, neededFor };
  } catch (error) {
    const reason = (error as Error).message.split("\n", 1)[0];
    return {
      name: "system",
      state: "fault",
      found: `${system}: the C library cannot be used (${reason}); kemari needs Linux with glibc`,
      neededFor,
    };
  }
}

function examineProcessors(): HostCheck {
  const cores = navigator.hardwareConcurrency;
  return {
    name: "processors",
    state: cores >= 2 ? "ok" : "missing",
    found: String(cores),
    neededFor: "kemari beside the VM: it keeps one busy while it sends",
  };
}

function examineMemory(): HostCheck {
  const { available, total } = Deno.systemMemoryInfo();
  return {
    name: "memory",
    state: "ok",
    found: `${formatBytes(available)} of ${formatBytes(total)} available`,
    neededFor: "on the secondary: the guest's RAM as far as it is in use, and a transaction",
  };
}

async function examineShm(): Promise<HostCheck> {
  const check = { name: "/dev/shm", neededFor: "a warm standby, whose RAM is a shared file" };
  try {
    const { bavail, bsize } = await statfs("/dev/shm");
    return { ...check, state: "ok", found: `${formatBytes(bavail * bsize)} free` };
  } catch {
    return { ...check, state: "missing", found: "not mounted" };
  }
}

async function examineKvm(): Promise<HostCheck> {
  return {
    name: "/dev/kvm",
    ...await tryDevice("/dev/kvm", "add this user to the group kvm"),
    neededFor: "guests at full speed; without it QEMU emulates them (tcg)",
  };
}

async function examineTun(): Promise<HostCheck> {
  return {
    name: "/dev/net/tun",
    ...await tryDevice("/dev/net/tun", "run as root"),
    neededFor: "TAP devices behind protected NICs",
  };
}

async function examineRights(): Promise<HostCheck> {
  const isRoot = Deno.uid() === 0;
  const mayAdminister = await hasNetAdmin();
  const user = isRoot ? "root" : `user ${Deno.uid()}`;
  return {
    name: "rights",
    state: mayAdminister ? "ok" : "missing",
    found: `${user}, ${mayAdminister ? "with" : "without"} CAP_NET_ADMIN`,
    neededFor: "making TAP devices; nothing else needs root",
  };
}

async function hasNetAdmin(): Promise<boolean> {
  try {
    const status = await Deno.readTextFile("/proc/self/status");
    const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
    return mask !== undefined && (BigInt(`0x${mask}`) >> CAP_NET_ADMIN_BIT & 1n) === 1n;
  } catch {
    return false;
  }
}

async function tryDevice(
  path: string,
  advice: string,
): Promise<Pick<HostCheck, "state" | "found">> {
  try {
    (await Deno.open(path, { read: true, write: true })).close();
    return { state: "ok", found: "can be opened" };
  } catch (error) {
    const found = error instanceof Deno.errors.NotFound
      ? "no such device"
      : error instanceof Deno.errors.PermissionDenied
      ? `may not be opened: ${advice}`
      : `cannot be opened (${(error as Error).message.split(":", 1)[0]})`;
    return { state: "missing", found };
  }
}

/** Finds the first executable of a name on PATH. */
async function findOnPath(name: string): Promise<string | undefined> {
  for (const folder of (Deno.env.get("PATH") ?? "").split(":")) {
    if (folder !== "" && await isExecutable(`${folder}/${name}`)) return `${folder}/${name}`;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    const { isFile, mode } = await Deno.stat(path);
    return isFile && ((mode ?? 0) & 0o111) !== 0;
  } catch {
    return false;
  }
}

/**
 * Chooses the QEMU to examine: the one given, else `KEMARI_QEMU`, else the one on PATH, else the
 * first of `cached` that exists. Downloads nothing.
 *
 * @param given Taken without checking that it exists.
 */
export async function findQemu(
  given: string | undefined,
  cached: readonly string[],
): Promise<FoundQemu | undefined> {
  if (given !== undefined) return { program: given, source: "--qemu" };
  const own = Deno.env.get("KEMARI_QEMU");
  if (own) return { program: own, source: "KEMARI_QEMU" };
  const installed = await findOnPath(`qemu-system-${Deno.build.arch}`);
  if (installed !== undefined) return { program: installed, source: "PATH" };
  for (const program of cached) {
    if (await isExecutable(program)) return { program, source: "cache" };
  }
  return undefined;
}

/**
 * Asks QEMU about its running VM, and whether the VM can be protected. The VM is not disturbed.
 *
 * @param socket QEMU's QMP socket.
 * @throws {TransportError} if nothing answers; {WireError} if the answer is not QMP.
 */
export async function examineVm(socket: string): Promise<VmFindings> {
  await using client = await QmpClient.connect(socket);
  const ask = async (command: string, args?: Record<string, string>): Promise<unknown> => {
    try {
      return await client.execute(command, args);
    } catch (error) {
      // Not every QEMU knows every command; what has no answer is left out of the report.
      if (error instanceof QemuError) return undefined;
      throw error;
    }
  };
  const support = await readMigrationSupport(client);
  const timer = await readGuestTimer(client);
  const outside = await askOutside(client);
  const machine = await ask("qom-get", { path: "/machine", property: "type" });
  const name = await ask("query-name") as { name?: unknown } | undefined;
  const cpus = await ask("query-cpus-fast");
  const memory = await ask("query-memory-size-summary") as Record<string, unknown> | undefined;
  const baseBytes = memory?.["base-memory"];
  const pluggedBytes = memory?.["plugged-memory"];
  return {
    socket,
    name: typeof name?.name === "string" ? name.name : null,
    machine: typeof machine === "string" ? machine.replace(/-machine$/, "") : null,
    cpus: Array.isArray(cpus) ? cpus.length : null,
    memoryBytes: typeof baseBytes === "number"
      ? baseBytes + (typeof pluggedBytes === "number" ? pluggedBytes : 0)
      : null,
    support,
    timer,
    outside,
  };
}
