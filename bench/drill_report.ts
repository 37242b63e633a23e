/** What a drill is told, and what it reports. */
import type { GuestImages } from "../fixtures/guest/guest.ts";
import type { QemuInstall } from "../fixtures/provision/qemu.ts";

/**
 * `memory`: the guest counts on its console and in memory. `client`: a client outside talks TCP to a
 * service in the guest that keeps each message on disk and in memory.
 */
export type DrillForm = "memory" | "client";

export interface DrillSettings {
  /** `auto`: with a client where this host allows it. */
  readonly form: DrillForm | "auto";
  readonly runs: number;
  /** How long each run synchronizes before the kill. */
  readonly seconds: number;
  readonly memoryMiB: number;
  /** Bytes of random data, in MiB, whose checksum the guest must still get right. */
  readonly fillMiB: number;
  readonly syncIntervalMs: number;
  /** Leave the working folders behind. */
  readonly keep: boolean;
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
  readonly checks: readonly DrillCheck[];
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
   * waited for an answer.
   */
  readonly outageMs: number;
  /** `client`: how long the guest's frames were held, before the kill. */
  readonly heldP50Ms?: number;
  readonly heldP99Ms?: number;
}

export interface DrillReport {
  readonly qemu: string;
  readonly guestKernel: string;
  readonly memoryMiB: number;
  readonly form: DrillForm;
  readonly held: boolean;
  readonly runs: readonly DrillRun[];
}

/** Tells a person what happens; one line a call. */
export type Narrate = (line: string) => void;

/** What one run works with. */
export interface RunContext {
  readonly qemu: QemuInstall;
  readonly guest: GuestImages;
  readonly settings: DrillSettings;
  readonly narrate: Narrate;
  readonly signal: AbortSignal;
}
