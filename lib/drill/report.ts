/** What a drill is told, and what it reports. */
import type { GuestImages, GuestKernel } from "../lab/guest/guest.ts";
import type { QemuInstall } from "../lab/provision/qemu.ts";
import type { TakeoverStatus } from "../control/receiver_status.ts";
import type { BootedVms } from "./booted_vms.ts";
import type { Devices, DiskMode, Fault, Phase } from "./plan.ts";
import type { SeededRandom } from "./seeded_random.ts";

/**
 * `memory`: the guest counts on its console and in memory. `client`: a client outside talks TCP to a
 * service in the guest that keeps each message on disk and in memory.
 */
export type DrillForm = "memory" | "client";

export interface DrillSettings {
  /** `auto`: with a client where this host allows it. */
  readonly form: DrillForm | "auto";
  /** How often each fault is rehearsed with each device model. */
  readonly runs: number;
  /** How long each run synchronizes before the fault. */
  readonly seconds: number;
  readonly memoryMiB: number;
  /** Bytes of random data, in MiB, whose checksum the guest must still get right. */
  readonly fillMiB: number;
  readonly syncIntervalMs: number;
  readonly faults: readonly Fault[];
  /** Takeovers back and forth between the hosts, under one client connection, instead of a fault. */
  readonly pingPong?: number;
  readonly devices: readonly Devices[];
  readonly diskMode: DiskMode;
  readonly commit: "sync" | "async";
  /** Whether the secondary's QEMU waits with the replica's RAM, or is given all of it. */
  readonly standby: "warm" | "cold";
  /** Silence after which either side counts as lost; the secondary may be given more. */
  readonly graceMs: number;
  /** Whether each run boots its guest, or all of a device model go on from one boot. */
  readonly boot: "each" | "once";
  /** How many runs there are at a time. */
  readonly jobs: number;
  /** Chooses the moments. */
  readonly seed: number;
  /** Of which one is chosen at random for every death of the primary. */
  readonly phases: readonly Phase[];
  /** Whether the link is encrypted, with a key that is made for the run. */
  readonly key?: boolean;
  /** Leave the working folders behind. */
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
  /** What was found. */
  readonly detail: string;
}

export interface DrillRun {
  readonly run: number;
  /** Absent in the form without a client, which has one fault, disk and device model only. */
  readonly case?: DrillCase;
  readonly checks: readonly DrillCheck[];
  /** What the fault met: what the VM and its transactions were doing at that moment. */
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
  /** The last number that was heard before the kill, and the first after it. */
  readonly lastCount: number;
  readonly firstCount: number;
  /**
   * `memory`: from the kill to the guest's next output. `client`: the longest time that the client
   * waited for an answer; absent where no failover is due.
   */
  readonly outageMs?: number;
  /**
   * `client`: from the guest's last TCP segment at the first host to its first at the second; to
   * within 5 ms, with one run at a time. Its answer takes longer: a QEMU that is new translates all of it anew under TCG.
   */
  readonly silenceMs?: number;
  /** The secondary's account of the takeover, while it can still be asked. */
  readonly takeover?: TakeoverStatus;
  /** `client`: how long the guest's frames were held, before the kill. */
  readonly heldP50Ms?: number;
  readonly heldP99Ms?: number;
}

export interface DrillReport {
  readonly qemu: string;
  /** Of the device models that were rehearsed, each once. */
  readonly guestKernels: readonly string[];
  readonly memoryMiB: number;
  readonly form: DrillForm;
  readonly boot: "each" | "once";
  /** So many runs at a time; several slow each other down. */
  readonly jobs: number;
  readonly seed: number;
  readonly held: boolean;
  readonly runs: readonly DrillRun[];
}

/** Tells a person what happens; one line a call. */
export type Narrate = (line: string) => void;

/** What two hosts are made of. */
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
  /** Where VMs that have booted are kept, if this one need not boot. */
  readonly booted?: BootedVms;
  readonly narrate: Narrate;
  readonly signal: AbortSignal;
}

/** What one run works with. */
export interface RunContext extends HostsContext {
  readonly settings: DrillSettings;
  readonly random: SeededRandom;
  /** How long anything that must happen may take; a minute if absent. */
  readonly limitMs?: number;
}
