/** Settings of a VM's taps. */
import type { DiskTapAddress } from "../disk/disk_tap_address.ts";
import type { NetTapAddress } from "../net/net_tap_address.ts";
import type { HeldClass } from "../../control/tap_status.ts";

/** The NICs and disks that the command line names. */
export interface TapSettings {
  readonly nets: readonly NetTapAddress[];
  readonly disks: readonly DiskTapAddress[];
  /** Whether replicated disks are copied to the secondary first, or known to be equal. */
  readonly diskSync: "full" | "none";
}

/** Which held output asks for a synchronization. */
export type SyncOn = readonly HeldClass[];

/**
 * What asks for a synchronization by default: packets; and writes too if an image is shared, since
 * those wait in memory.
 */
export function defaultSyncOn(disks: readonly Pick<DiskTapAddress, "mode">[]): SyncOn {
  const shared = disks.some(({ mode }) => mode === "shared");
  return shared ? ["net", "disk"] : ["net"];
}
