/**
 * The ways to keep a measured guest: unprotected, by kemari with different settings, by QEMU's
 * pair.
 */

/** One way. */
export interface GuestSetup {
  /** Name in tables and charts. */
  readonly name: string;
  /**
   * `plain`: QEMU alone. `tapped`: disk and NIC go through kemari, which has no secondary.
   * `kemari`: protected by `kemari protect`. `pair`: QEMU's own COLO, two QEMUs.
   */
  readonly kind: "plain" | "tapped" | "kemari" | "pair";
  /** Whether both ends open one image, as in 2010; else each end has its own. */
  readonly sharedDisk?: boolean;
  /** More arguments for `kemari protect`. */
  readonly options?: readonly string[];
  /** More arguments for QEMU. */
  readonly machineArgs?: readonly string[];
  /**
   * Whether QEMU's pair is set up just as its documentation says, on an unchanged link; else both
   * are at their best.
   */
  readonly asItComes?: boolean;
}

export const PLAIN: GuestSetup = { name: "unprotected, QEMU's own disk", kind: "plain" };

/** The baseline for protection: the same way to the disk, without protection. */
export const UNPROTECTED: GuestSetup = { name: "unprotected", kind: "tapped" };

/** The VM stays stopped until the secondary has the transaction; output starts a transaction. */
export const KEMARI_2010: GuestSetup = {
  name: "kemari as in 2010",
  kind: "kemari",
  sharedDisk: true,
  options: ["--commit", "sync", "--sync-on", "net,disk"],
};

export const KEMARI_DEFAULT: GuestSetup = { name: "kemari", kind: "kemari" };

/** The competitor of kemari. */
export const QEMU_PAIR: GuestSetup = { name: "QEMU's COLO pair", kind: "pair" };

/** Shows how much delayed acknowledgements slow QEMU's pair down. */
export const QEMU_PAIR_AS_IT_COMES: GuestSetup = {
  name: "QEMU's COLO pair, as it comes",
  kind: "pair",
  asItComes: true,
};

/** QEMU's timer for the pair, and the default of kemari's `--sync-interval`. */
export const SYNC_INTERVAL_MS = 100;

/**
 * Notes that belong to every comparison of the pair with kemari.
 *
 * @param hasNetwork Whether there is an own link, whose routes can be set.
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
