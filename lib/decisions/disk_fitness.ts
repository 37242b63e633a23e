/**
 * Whether the disks at the secondary go with the VM's state that is committed there: {@link unnamedDisks},
 * before a session's first commit, and {@link whyUnfit}, before the VM is started there, be it by a
 * HANDOVER, behind a loss or because somebody asks.
 *
 * **Why no VM is started with a disk of another moment.** A disk goes with the committed state if the
 * session that has committed it brings the disk along: it names the disk, and from then on each
 * transaction has what the guest wrote. A session that does not name a disk has a VM that does not write
 * through kemari there, or has no such disk; and the copy here, if an earlier session has left one, is
 * of an earlier moment, which nothing that comes can mend. So such a session commits nothing: what is
 * kept, if anything is, stays of one moment. A session names its disks in its first transaction, or
 * never.
 *
 * What an earlier process has stored was whole when it was stored, with the disks that it knew: for
 * another disk, given on the command line since, nothing is known of that moment either. Only of what a
 * version has stored that did not note its disks is it taken for granted.
 *
 * Of a disk that is named, a copy goes with the state once it is complete (it is a mixture of two moments
 * until then), and a shared image as long as the primary has not gone on writing to it alone.
 */

/** What is known of one of the secondary's disks. */
export interface DiskStanding {
  readonly name: string;
  readonly mode: "replicated" | "shared";
  /** Whether the session of the committed state has named it; undefined where that was not noted. */
  readonly isNamed: boolean | undefined;
  /** Whether its copy has been complete in a committed transaction since it was named last. */
  readonly isCopied: boolean;
  /** Whether a sender has come since the last commit: its VM writes to a shared image by itself. */
  readonly isOutrun: boolean;
}

/** Why a disk does not go with the committed state. */
export type DiskUnfit =
  /** The session of that state has not named it. */
  | "unnamed"
  /** Its copy is not complete. */
  | "incomplete"
  /** The primary has gone on with it since. */
  | "outrun";

/** Judges one disk; undefined if it goes with the committed state. */
export function whyUnfit(disk: DiskStanding): DiskUnfit | undefined {
  if (disk.isNamed === false) return "unnamed";
  if (disk.mode === "shared") return disk.isOutrun ? "outrun" : undefined;
  return disk.isCopied || disk.isNamed === undefined ? undefined : "incomplete";
}

/**
 * Which disks here keep a session from its first commit: those that its first transaction does not name.
 *
 * @param here The secondary's disks, of either mode.
 * @param named By the transaction.
 */
export function unnamedDisks(
  here: Iterable<string>,
  named: { has(name: string): boolean },
): readonly string[] {
  return [...here].filter((name) => !named.has(name));
}
