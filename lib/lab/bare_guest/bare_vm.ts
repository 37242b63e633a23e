/** VMs that run the bare guest, under TCG or KVM. */

import { countsOf, type GuestConsole } from "../guest/guest_console.ts";
import type { GuestPort } from "../guest/guest_port.ts";
import { StandbyGuest } from "../vms/standby_guest.ts";
import { startVm, type Vm, type VmOptions } from "../vms/vm.ts";
import {
  BareAgent,
  type BareStatus,
  decodeStatus,
  decodeVerification,
  type Verification,
} from "./bare_agent.ts";
import { ensureBareGuest } from "./bare_guest.ts";

/** What may change while the guest runs. */
interface LiveSettings {
  /** The PIT, the local APIC's timer, or nothing ever. */
  readonly timer?: "pit" | "apic" | "none";
  /** Ticks a second; below 19 the PIT ticks 18.2 times, its slowest. */
  readonly hz?: number;
  /** Pages dirtied at each tick. */
  readonly pages?: number;
  /** Ticks for each number said; 0 for silence. */
  readonly every?: number;
}

/** How the guest is to be, with its own defaults where absent: see `guest.asm`. */
interface GuestSettings extends LiveSettings {
  /** Whether the PIT and the serial port interrupt by the 8259 or by the I/O APIC. */
  readonly irq?: "pic" | "apic";
  /** KiB of memory that are dirtied, from 2 MiB on. */
  readonly regionKiB?: number;
  /** Ticks a second of the second vCPU. */
  readonly apHz?: number;
}

/** How to start a VM with the bare guest. A pair must agree on all but name, incoming and stdin. */
export interface BareVmOptions
  extends GuestSettings, Omit<VmOptions, "guest" | "append" | "accelerator"> {
  /** QEMU's `-accel`: `tcg`, `kvm`, or `kvm,PROPERTY=…`. */
  readonly accelerator: string;
  /** 1 if absent; of more, the guest wakes one. */
  readonly cpus?: number;
  /** KVM's interrupt controllers and PIT: in the kernel (QEMU's default), or all but the APICs in QEMU. */
  readonly kernelIrqchip?: "on" | "split";
  /** Boot with QEMU's own firmware: some 8 s where the host's KVM emulates 16-bit code. */
  readonly qemuFirmware?: boolean;
}

/** The words for the guest's command line. */
function settingWords(settings: GuestSettings & { readonly cpus?: number }): string {
  const values = {
    timer: settings.timer,
    irq: settings.irq,
    hz: settings.hz,
    pages: settings.pages,
    every: settings.every,
    region: settings.regionKiB,
    cpus: settings.cpus,
    aphz: settings.apHz,
  };
  return Object.entries(values).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`]
  ).join(" ");
}

/** What a VM of any guest would be started with. */
async function vmOptionsOf(options: BareVmOptions): Promise<VmOptions> {
  const images = await ensureBareGuest();
  const { cpus = 1, kernelIrqchip, qemuFirmware = false, machine = "pc" } = options;
  return {
    ...options,
    machine: kernelIrqchip ? `${machine},kernel-irqchip=${kernelIrqchip}` : machine,
    memoryMiB: options.memoryMiB ?? 64,
    guest: qemuFirmware ? { ...images, firmware: undefined } : images,
    append: settingWords(options),
    args: [...(cpus > 1 ? ["-smp", String(cpus)] : []), ...(options.args ?? [])],
  };
}

/** A VM as somebody starts it, and as far as the bare guest needs it. */
export interface HostVm extends AsyncDisposable {
  readonly name: string;
  readonly console: GuestConsole;
  readonly port: GuestPort;
  readonly pid: number;
  readonly qmpPath: string;
  readonly spareQmpPath: string;
  /** Resolves when QEMU has ended. */
  readonly status: Promise<unknown>;
  powerCut(): Promise<void>;
}

/** A VM in which the bare guest runs, or is to run. Owns the VM. */
export class BareVm<Host extends HostVm = Vm> implements AsyncDisposable {
  readonly #agent: BareAgent;

  /** @param vm The VM itself. */
  constructor(readonly vm: Host) {
    const lastWords = () => vm.console.lastWords;
    this.#agent = vm.port.add(new BareAgent(`${vm.name} agent`, vm.port.write, lastWords));
  }

  get name(): string {
    return this.vm.name;
  }
  get console(): GuestConsole {
    return this.vm.console;
  }
  get pid(): number {
    return this.vm.pid;
  }
  /** QMP socket for whoever protects the VM; one client at a time. */
  get qmpPath(): string {
    return this.vm.qmpPath;
  }
  /** A second QMP socket, for the test itself. */
  get spareQmpPath(): string {
    return this.vm.spareQmpPath;
  }

  /** The numbers that the guest has said so far. */
  counts(): number[] {
    return countsOf(this.console);
  }

  /** Waits until the guest has said this number or a later one. */
  async counted(count: number, timeoutMs = 30_000): Promise<void> {
    const reached = (text: string) => Number(/^count (\d+)$/.exec(text)?.[1] ?? -1) >= count;
    await this.console.waitFor(({ text }) => reached(text), { timeoutMs });
  }

  /** Has the guest look at all of its memory. */
  async verify(): Promise<Verification> {
    return decodeVerification(await this.#agent.ask("verify"));
  }

  async status(): Promise<BareStatus> {
    return decodeStatus(await this.#agent.ask("status"));
  }

  /** Changes settings; those of the timer start it anew. */
  async set(settings: LiveSettings): Promise<void> {
    for (const word of settingWords(settings).split(" ")) await this.ask(word);
  }

  /**
   * Sends any command that is answered by "ok": `stop`, `start`, `spoil`, `NAME=VALUE`.
   *
   * @throws {RangeError} If the guest does not know it.
   */
  async ask(command: string): Promise<void> {
    const answer = await this.#agent.ask(command);
    if (answer !== "ok") throw new RangeError(`${this.name} to "${command}": ${answer}`);
  }

  /** Ends QEMU alone with SIGKILL, and waits until it is gone. */
  async kill9(): Promise<void> {
    const ended = this.vm.status;
    Deno.kill(this.vm.pid, "SIGKILL");
    await ended;
  }

  /** Ends QEMU and all that it started at one blow. */
  powerCut(): Promise<void> {
    return this.vm.powerCut();
  }

  /** May be called again. */
  async dispose(): Promise<void> {
    await this.vm[Symbol.asyncDispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** Starts a VM with the bare guest. It counts in milliseconds, unless it waits for a stream. */
export async function startBareVm(options: BareVmOptions): Promise<BareVm> {
  return new BareVm(await startVm(await vmOptionsOf(options)));
}

/** A VM with the bare guest that somebody else starts, by `vm.command`. */
export async function prepareBareStandby(options: BareVmOptions): Promise<BareVm<StandbyGuest>> {
  return new BareVm(await StandbyGuest.prepare(await vmOptionsOf(options)));
}
