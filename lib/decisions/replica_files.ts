/**
 * What becomes of a replica's files when `recv` ends: {@link keepsFiles}.
 *
 * **Why no acknowledged state is lost.** Files are removed only if a VM has run with their content,
 * if nothing was ever committed, or if an operator ends `recv` who has not named a folder, and so
 * wants nothing kept. A `recv` that fails or is killed leaves them to the next one.
 */
export interface AtRecvEnd {
  /** Whether a VM runs with the files' content, or has run with it, or may have. */
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
