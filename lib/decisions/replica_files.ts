/**
 * What becomes of a replica's files when `recv` ends: {@link keepsFiles}.
 *
 * **Why no acknowledged state is lost.** Files go only where a VM has had what is in them, where
 * nothing was ever committed, or where an operator ends `recv` who has not named a folder, and so wants
 * nothing kept. A `recv` that fails or is killed leaves them to the next one.
 */
export interface AtRecvEnd {
  /** A VM has what is in the files, or had that and has ended, or may have had it. */
  readonly isGiven: boolean;
  /** The last committed transaction; 0 if there is none. */
  readonly committed: number;
  /** Whether the operator, or the system, has asked this process to end. */
  readonly isAsked: boolean;
  /** `--ram-dir`: whether the operator has named the folder. */
  readonly isNamed: boolean;
}

/** Decides whether the files stay for the next `recv`. */
export function keepsFiles({ isGiven, committed, isAsked, isNamed }: AtRecvEnd): boolean {
  if (isGiven || committed === 0) return false;
  return isNamed || !isAsked;
}
