/** A drill's settings and its report. */
import type { GuestImages, GuestKernel } from "../lab/guest/guest.ts";
import type { QemuInstall } from "../lab/provision/qemu.ts";
import type { TakeoverStatus } from "../control/receiver_status.ts";
import type { BootedVms } from "./booted_vms.ts";
import type { Devices, DiskMode, Fault, Phase } from "./plan.ts";
import type { SeededRandom } from "./seeded_random.ts";

/**
 * `memory`: the guest counts on its console and in memory. `client`: a client outside talks TCP to
 * a service in the guest that keeps each message on disk and in memory.
 */
export type DrillForm = "memory" | "client";

export interface DrillSettings {
  /** `auto`: with a client where this host allows it. */
  readonly form: DrillForm | "auto";
  /** How often each fault is rehearsed with each device model. */
  readonly runs: number;
  /** How long each run is protected before the fault. */
  readonly seconds: number;
  readonly memoryMiB: number;
  /** Bytes of random data, in MiB, whose checksum the guest must still get right. */
  readonly fillMiB: number;
  readonly syncIntervalMs: number;
  readonly faults: readonly Fault[];
  /**
   * Takeovers back and forth between the hosts, under one client connection, instead of a fault.
   */
  readonly pingPong?: number;
  readonly devices: readonly Devices[];
  readonly diskMode: DiskMode;
  readonly commit: "sync" | "async";
  /**
   * Whether the secondary's QEMU waits with the replica's files as its RAM, or gets the whole RAM
   * at the takeover.
   */
  readonly standby: "warm" | "cold";
  /** Silence after which either side counts as lost; some runs give the secondary more. */
  readonly graceMs: number;
  /** Whether each run boots its guest, or all runs of a device model start from one boot. */
  readonly boot: "each" | "once";
  /** How many runs are carried out at a time. */
  readonly jobs: number;
  /** Seed of the random moments. */
  readonly seed: number;
  /** The phases, of which each death of the primary gets one at random. */
  readonly phases: readonly Phase[];
  /** Whether the link is encrypted, with a key that is made for the run. */
  readonly key?: boolean;
  /** Whether to keep the working folders. */
  readonly keep: boolean;
}

/** What one run rehearses. */
export interface DrillCase {
  readonly fault: Fault;
  readonly devices: Devices;
  readonly diskMode: DiskMode;
  readonly commit: "sync" | "async";
}

/** One thing that must hold after a failover. */
export interface DrillCheck {
  readonly name: string;
  readonly held: boolean;
  /** The finding, in words. */
  readonly detail: string;
}

export interface DrillRun {
  readonly run: number;
  /** Absent in the form without a client, which has one fault, disk and device model only. */
  readonly case?: DrillCase;
  readonly checks: readonly DrillCheck[];
  /** The phase that the fault met: what the VM and its transactions were doing. */
  readonly phase?: string;
  /** The secondary's last committed transaction. */
  readonly transaction: number;
  readonly syncs: number;
  readonly syncsPerSecond: number;
  readonly pages: number;
  readonly zeroPages: number;
  readonly wireBytes: number;
  readonly pauseP50Ms: number;
  readonly pauseP99Ms: number;
  /** The secondary's last commit before the kill, ms before it. */
  readonly commitAgeMs: number;
  /** The last number printed or answered before the kill, and the first after it. */
  readonly lastCount: number;
  readonly firstCount: number;
  /**
   * `memory`: from the kill to the guest's next output. `client`: the longest time that the client
   * waited for an answer; absent where no failover is due.
   */
  readonly outageMs?: number;
  /**
   * `client`: from the guest's last TCP segment at the first host to its first at the second; to
   * within 5 ms, with one run at a time. An answer to the client takes longer: a new QEMU
   * translates all code again under TCG.
   */
  readonly silenceMs?: number;
  /** The secondary's report of the takeover, if it could still be asked. */
  readonly takeover?: TakeoverStatus;
  /** `client`: how long the guest's frames were held, before the kill. */
  readonly heldP50Ms?: number;
  readonly heldP99Ms?: number;
}

export interface DrillReport {
  readonly qemu: string;
  /** The machine types of the device models that were rehearsed, each once. */
  readonly guestKernels: readonly string[];
  readonly memoryMiB: number;
  readonly form: DrillForm;
  readonly boot: "each" | "once";
  /** How many runs were carried out at a time; several slow each other down. */
  readonly jobs: number;
  readonly seed: number;
  readonly held: boolean;
  readonly runs: readonly DrillRun[];
}

/** Shows the progress to a person; one line per call. */
export type Narrate = (line: string) => void;

/** The parts that the two hosts need. */
export interface HostsContext {
  readonly qemu: QemuInstall;
  /** The words that start kemari; this very program by default. */
  readonly kemari?: readonly string[];
  /** The guests that the device models need. */
  readonly guests: Readonly<Partial<Record<GuestKernel, GuestImages>>>;
  readonly settings: Pick<
    DrillSettings,
    "memoryMiB" | "syncIntervalMs" | "standby" | "graceMs" | "key"
  >;
  /** The VMs that have booted, if this VM need not boot. */
  readonly booted?: BootedVms;
  readonly narrate: Narrate;
  readonly signal: AbortSignal;
}

/** The parts that one run needs. */
export interface RunContext extends HostsContext {
  readonly settings: DrillSettings;
  readonly random: SeededRandom;
  /** How long anything that must happen may take; a minute if absent. */
  readonly limitMs?: number;
}
