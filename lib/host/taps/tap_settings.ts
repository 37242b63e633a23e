/** What is asked of the taps of one VM, and what they tell of themselves. */
import type { DiskTapAddress } from "../disk/disk_tap_address.ts";
import type { NetTapAddress } from "../net/net_tap_address.ts";
import type { HeldClass } from "../../control/tap_status.ts";

/** What the command line asks to tap. */
export interface TapSettings {
  readonly nets: readonly NetTapAddress[];
  readonly disks: readonly DiskTapAddress[];
  /** Whether a replicated disk is copied to the secondary first, or is known to be equal. */
  readonly diskSync: "full" | "none";
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
