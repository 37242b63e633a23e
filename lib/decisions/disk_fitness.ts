/**
 * Whether the disks at the secondary fit the VM's state that is committed there: {@link
 * unnamedDisks}, before a session's first commit, and {@link whyUnfit}, before the VM is started
 * there, be it by a HANDOVER, after a loss or because an operator asks.
 *
 * **Why no VM is started with a disk of another moment.** A disk fits the committed state if the
 * session that has committed the state includes the disk: the session names it, and from then on
 * each transaction has the guest's writes. If a session does not name a disk, its VM has no such
 * disk, or does not write to it through kemari; and the copy here, if an earlier session has left
 * one, is of an earlier moment, which no later transaction can correct. So such a session commits
 * nothing, and what is kept, if anything, stays of one moment. A session names its disks in its
 * first transaction, or never.
 *
 * The state that an earlier process has stored was whole when it was stored, with the disks that
 * the process knew: a disk that was added to the command line since is not of that moment either.
 * Only if an older version has stored the state, which did not note its disks, are they assumed to
 * fit.
 *
 * Of a named disk, a copy fits the state when it is complete (until then it is a mixture of two
 * moments), and a shared image as long as the primary has not gone on writing to it alone.
 */

/** What is known of one of the secondary's disks. */
export interface DiskStanding {
  readonly name: string;
  readonly mode: "replicated" | "shared";
  /** Whether the session of the committed state has named it; undefined if that was not noted. */
  readonly isNamed: boolean | undefined;
  /** Whether its copy has been complete in a committed transaction since it was named last. */
  readonly isCopied: boolean;
  /** Whether a sender has come since the last commit: its VM writes to a shared image by itself. */
  readonly isOutrun: boolean;
}

/** Why a disk does not fit the committed state. */
export type DiskUnfit =
  /** The session of that state has not named it. */
  | "unnamed"
  /** Its copy is not complete. */
  | "incomplete"
  /** The primary has written it since. */
  | "outrun";

/** Judges a disk; undefined if it fits the committed state. */
export function whyUnfit(disk: DiskStanding): DiskUnfit | undefined {
  if (disk.isNamed === false) return "unnamed";
  if (disk.mode === "shared") return disk.isOutrun ? "outrun" : undefined;
  return disk.isCopied || disk.isNamed === undefined ? undefined : "incomplete";
}

/**
 * The disks here because of which a session cannot make its first commit: those that its first
 * transaction does not name.
 *
 * @param here The secondary's disks, of either mode.
 * @param named The disks that the transaction names.
 */
export function unnamedDisks(
  here: Iterable<string>,
  named: { has(name: string): boolean },
): readonly string[] {
  return [...here].filter((name) => !named.has(name));
}
