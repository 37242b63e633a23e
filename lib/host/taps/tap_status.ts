/** What is asked of the taps of one VM, and what they tell of themselves. */
import type { EventLatencySummary } from "../../replica/event_latency.ts";
import type { LatencyWindow, RecentDurations } from "../../replica/latency.ts";
import type { DiskTapAddress } from "../disk/disk_address.ts";
import type { NetTapCounters } from "../net/net_tap_events.ts";
import type { DiskStatus } from "../disk/primary_disk.ts";
import type { NetTapAddress } from "../net/net_address.ts";

/** What the command line asks to tap. */
export interface TapSettings {
  readonly nets: readonly NetTapAddress[];
  readonly disks: readonly DiskTapAddress[];
  /** Whether a replicated disk is copied to the secondary first, or is known to be equal. */
  readonly diskSync: "full" | "none";
}

/** Why output is held. */
export type HeldClass = "net" | "disk";

export interface TapStatus {
  readonly nets: Readonly<Record<string, NetTapCounters>>;
  readonly disks: readonly DiskStatus[];
  /** First write of an epoch to its release, ms. */
  readonly diskHold: ReturnType<LatencyWindow["summary"]>;
  /** Where the time goes that output is held, by class. */
  readonly latency: Readonly<Record<HeldClass, EventLatencySummary>>;
}

/** How long output was held lately. */
export interface RecentHolds {
  /** Each NIC's frames, by its name. */
  readonly netHold: Readonly<Record<string, RecentDurations>>;
  /** First write of an epoch to its release, of all disks. */
  readonly diskHold: RecentDurations;
}

/** Which held output asks for a synchronization. */
export type SyncOn = readonly HeldClass[];

/**
 * What asks for a synchronization unless told otherwise: packets; and writes too where an image is
 * shared, since those wait in memory.
 */
export function defaultSyncOn(disks: readonly Pick<DiskTapAddress, "mode">[]): SyncOn {
  const shared = disks.some(({ mode }) => mode === "shared");
  return shared ? ["net", "disk"] : ["net"];
}
