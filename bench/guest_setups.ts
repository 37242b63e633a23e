/** How a measured guest is kept: unprotected, by kemari in one way or another, by QEMU's pair. */

/** One way. */
export interface GuestSetup {
  /** In tables and charts. */
  readonly name: string;
  /**
   * `plain`: QEMU alone. `tapped`: disk and NIC go through kemari, which has no secondary.
   * `kemari`: protected by `kemari protect`. `pair`: QEMU's own COLO, two QEMUs.
   */
  readonly kind: "plain" | "tapped" | "kemari" | "pair";
  /** One image that both ends open, as in 2010; else each end has its own. */
  readonly sharedDisk?: boolean;
  /** More words for `kemari protect`. */
  readonly options?: readonly string[];
  /** More arguments for QEMU. */
  readonly machineArgs?: readonly string[];
  /** QEMU's pair as its documentation has it, on a link as it is; else both are at their best. */
  readonly asItComes?: boolean;
}

export const PLAIN: GuestSetup = { name: "unprotected, QEMU's own disk", kind: "plain" };

/** What protection is compared with: the same way to the disk, without protection. */
export const UNPROTECTED: GuestSetup = { name: "unprotected", kind: "tapped" };

/** The VM stays stopped until the secondary has the transaction; output starts one. */
export const KEMARI_2010: GuestSetup = {
  name: "kemari as in 2010",
  kind: "kemari",
  sharedDisk: true,
  options: ["--commit", "sync", "--sync-on", "net,disk"],
};

export const KEMARI_DEFAULT: GuestSetup = { name: "kemari", kind: "kemari" };

/** What kemari is compared with. */
export const QEMU_PAIR: GuestSetup = { name: "QEMU's COLO pair", kind: "pair" };

/** Shows what delayed acknowledgements cost QEMU's pair. */
export const QEMU_PAIR_AS_IT_COMES: GuestSetup = {
  name: "QEMU's COLO pair, as it comes",
  kind: "pair",
  asItComes: true,
};

/** QEMU's timer for the pair, and kemari's `--sync-interval` as it is by default. */
export const SYNC_INTERVAL_MS = 100;

/**
 * What must be said wherever the pair stands beside kemari.
 *
 * @param hasNetwork Whether there is a link whose routes are ours.
 */
export function pairNotes(hasNetwork: boolean): readonly string[] {
  const link = hasNetwork
    ? "over TCP that acknowledges at once (quickack 1 on the link's routes, for kemari's rows too)"
    : "over a Unix socket, since without a network of our own TCP acknowledges when it pleases";
  return [
    `${QEMU_PAIR.name}: x-colo on both sides ${link}, suppress-vmdesc=on on both sides; as it comes: ` +
    "without either, over TCP, where its small messages wait for delayed acknowledgements: that " +
    "row measures those",
    "QEMU's pair is set up as docs/system/qemu-colo.rst has it, without its quorum and replication " +
    "of the disk and without its filters of the network. Its disk is a plain image on the primary " +
    "(writes do not travel), and packets leave at once: it does less than kemari does, and what it " +
    "would lose in a failover is not counted",
  ];
}
